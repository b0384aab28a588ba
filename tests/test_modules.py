"""Each module has a test of its name in the same folder, or is listed here with the test of its behavior."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "airflow_provider_regal"

#: The sandbox is tested as Regal would be, over HTTP, by what it answers and shows: not module by module.
BY_BEHAVIOR = "sandbox"
#: Module -> the test file that has its behavior; what one option or page does is tested where the user meets it.
TESTED_IN = {
    "checks": "cli/test_check",
    "connection_form": "hooks/test_connection_form",
    "defaults": "hooks/test_connection_form",
    "cli/commands": "cli/test_front_ends",
    "cli/delivering": "cli/test_send",
    "cli/opening": "cli/test_check",
    "cli/output": "cli/test_history",
    "cli/try_row": "cli/test_try",
    "cli/write_back": "ledger/admin/test_write_back",
    "client/clock": "client/test_one_time",
    "client/guarantee": "client/test_exchange",
    "client/no_answer": "client/test_one_failures",
    "client/redact": "client/test_one_privacy",
    "delivery/stopping": "delivery/sending/test_thread",
    "delivery/reading/prepared": "delivery/reading/test_prepare",
    "delivery/reading/type_drift": "operators/test_contract",
    "delivery/sync/columns": "delivery/sync/test_rows",
    "events/faults": "events/test_models",
    "events/names": "events/test_contract",
    "events/python_values": "events/test_values",
    "events/traits": "events/test_values",
    "events/rows/coercion": "events/rows/test_mapping",
    "ledger/admin/as_read": "plugin/test_pages",
    "ledger/admin/evidence": "cli/people/test_consent",
    "ledger/admin/explaining": "cli/people/test_consent",
    "ledger/admin/last_deliveries": "cli/test_check",
    "ledger/admin/left": "cli/test_check",
    "ledger/formats": "cli/test_history",
    "operators/_event": "operators/test_event_operators",
    "operators/_failing": "transfers/test_sql_to_regal",
    "operators/_files": "transfers/test_file_to_regal",
    "operators/_rendering": "operators/test_event_operators",
    "operators/identify": "operators/test_event_operators",
    "operators/page": "operators/test_event_operators",
    "operators/rows": "decorators/test_regal",
    "operators/screen": "operators/test_event_operators",
    "operators/track": "operators/test_event_operators",
    "plugin/access": "plugin/test_pages",
    "plugin/app": "plugin/test_pages",
    "plugin/deliveries": "plugin/test_pages",
    "plugin/delivery": "plugin/test_pages",
    "plugin/health": "plugin/test_health_and_people",
    "plugin/ledgers": "plugin/test_health_and_people",
    "plugin/people": "plugin/test_health_and_people",
    "plugin/rendering": "plugin/test_pages",
    "sources/dead_letters": "delivery/test_redelivery",
    "sources/rows": "sources/test_marks",
    "sources/segment": "transfers/test_file_to_regal_segment",
}


def modules():
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return {str(path) for path in paths if path.name not in ("__init__", "__main__") and path.parts[0] != BY_BEHAVIOR}


def has_a_test_of_its_name(module):
    path = Path(module)
    return (TESTS / path.parent / f"test_{path.name.lstrip('_')}.py").exists()


def test_each_module_has_a_test_of_its_name_or_is_listed():
    assert {module for module in modules() if not has_a_test_of_its_name(module)} == set(TESTED_IN)


def test_each_test_that_is_listed_is_there():
    assert [test for test in TESTED_IN.values() if not (TESTS / f"{test}.py").exists()] == []
    assert list(TESTS.glob(f"{BY_BEHAVIOR}/test_*.py"))
