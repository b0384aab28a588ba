"""``try``: one row, its result, and Regal's answer; with a real sandbox, a real ledger and real DAG files."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scripts.warehouse import make_warehouse
from tests.cli.front_ends import airflow_parser
from tests.client.raw_server import RawServer, answering, http
from tests.ledger_file import deliveries, outcomes

EXAMPLES = Path(__file__).parents[2] / "dags"
KEY = "sandbox-key"
CONSENT = {"sms_opt_in": True, "sms_opt_in_at": "2026-03-02T14:05:09Z", "sms_opt_in_ip": "203.0.113.9"}


@pytest.fixture
def here(home, regal, monkeypatch):
    """A shell whose connection leads to the local Regal, with the default ledger."""
    monkeypatch.delenv("AIRFLOW__REGAL__LEDGER_CONN_ID")
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection())
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def file(here):
    """Write a file of rows; returns its path."""

    def write(*rows, name="rows.jsonl"):
        (here / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return here / name

    return write


@pytest.fixture
def try_row(run, here):
    """Try a row of a file as contacts; returns exit code, output, errors."""

    def command(path, *arguments, call="identify"):
        return run("try", "--file", path, "--call", call, *arguments)

    return command


def request_in(out):
    """The JSON body that is printed."""
    printed = out.partition("\nRequest\n")[2].partition("\nBilling\n")[0]
    return json.loads(printed[printed.index("  {") :])


def contact(number, **more):
    return {"user_id": f"u{number}", "phone": f"(212) 555-{number:04d}", **more}


def test_a_row_is_shown_as_it_is_read_with_what_becomes_of_it_and_nothing_is_sent_or_kept(
    try_row, file, regal, ledger_path
):
    path = file(contact(100), contact(101, plan="gold", visits=3, **CONSENT, voice_opt_in=True))
    code, out, err = try_row(path, "--row", 2)

    assert (code, err) == (0, "")
    assert out.startswith(f"Row 2 (rows.jsonl line 2) of {path}\n")
    assert "  plan           str   gold\n  visits         int   3\n" in out
    assert "  identify, at least once\n  person: user:u101, +12125550101\n" in out
    assert "  sms opt-in of 2026-03-02 14:05:09 UTC for +12125550101: sent\n" in out
    assert "  voice opt-in for +12125550101: withheld, no timestamp" in out
    assert f"  POST {regal.url}/events\n  Authorization: (the API key of the connection)\n" in out
    assert request_in(out)["traits"]["plan"] == "gold"
    assert "  1 billable event: 1 x contact updated (or created)\n" in out
    assert "Regal bills by its own records" in out
    assert out.endswith("Nothing was sent or kept. Add --send to send this row now.\n")
    assert KEY not in out
    assert regal.stats()["requests"] == 0
    assert not ledger_path.exists()


def test_what_is_sent_is_what_was_shown_and_the_answer_and_the_outcome_are_shown(try_row, file, regal, ledger_path):
    path = file(contact(100), contact(101, plan="gold", **CONSENT))
    code, out, err = try_row(path, "--row", 2, "--send")

    assert (code, err) == (0, "")
    (event,) = regal.events()
    assert event["body"] == request_in(out)
    assert "\nAnswer\n  HTTP 200 after 0." in out
    assert '{"message":"ok"}' in out
    assert "Acknowledged. Kept as delivery 1.\nShow it: airflow regal outcomes 1 --status acknowledged\n" in out
    assert KEY not in out
    (line,) = outcomes(ledger_path, 1)
    assert (line["place"], line["status"]) == ("rows.jsonl line 2", "acknowledged")
    assert deliveries(ledger_path)[0]["run_id"].startswith("try ")


def test_the_headers_that_are_shown_are_those_that_are_sent(try_row, file, monkeypatch):
    with RawServer(answering(http())) as server:
        connection = {"conn_type": "regal", "host": server.origin, "password": KEY}
        monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", json.dumps(connection))
        _, out, _ = try_row(file(contact(100)), "--send")
        (request,) = server.requests
    printed = out.partition("Authorization: (the API key of the connection)\n")[2].partition("\n\n")[0]
    shown = dict(line.strip().split(": ", 1) for line in printed.splitlines())
    assert shown.keys() == {"Content-Type", "Accept-Encoding", "User-Agent"}
    sent = {name.lower(): value for name, value in request.headers.items()}
    assert shown == {name: sent[name.lower()] for name in shown}
    assert sent["authorization"] == KEY


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"status": 400}, "Rejected (rejected, HTTP 400)"),
        ({"status": 500}, "Unknown (unknown, HTTP 500)"),
    ],
)
def test_what_regal_does_not_acknowledge_is_exit_code_1_with_its_answer(try_row, file, regal, fault, told):
    regal.set_faults([{"on": {"from": 1}, "do": fault}])
    code, out, err = try_row(file(contact(100)), "--event", "X", "--send", "--yes", call="track")
    assert code == 1
    assert "error" not in err
    assert f"HTTP {fault['status']} after" in out
    assert told in out
    assert "Kept as delivery 1." in out


def test_a_key_that_regal_refuses_is_one_error_and_is_never_printed(try_row, file, regal, monkeypatch):
    wrong = {**json.loads(regal.connection()), "password": "not-the-key-4711"}
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", json.dumps(wrong))
    code, out, err = try_row(file(contact(100)), "--send")
    assert code == 1
    assert "HTTP 401" in out
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert "4711" not in out + err


def test_every_fault_of_a_row_is_listed_and_its_opt_outs_are_sent_all_the_same(try_row, file, regal):
    path = file({"user_id": "u1", "phone": "(212) 555-0100", "email": "no", "sms_opt_in": False, "traits": 3})
    code, out, _ = try_row(path)
    assert code == 1
    assert "  rejected: Regal never gets it as it is\n    email: " in out
    assert "  Only its opt-outs are sent: nothing holds those back\n" in out
    assert request_in(out)["traits"]["phones"]["+12125550100"]["smsOptIn"]["subscribed"] is False
    code, out, _ = try_row(file({"user_id": "u1", "phone": "no"}), "--send")
    assert code == 1
    assert out.endswith("Nothing to send; nothing was kept.\n")
    assert regal.stats()["requests"] == 0


def test_an_event_that_may_reach_people_is_sent_only_once_that_was_confirmed(try_row, file, regal):
    path = file(contact(100))
    code, out, err = try_row(path, "--event", "Lesson Booked", "--send", call="track")
    assert code == 2
    assert "This track event may start a journey" in out
    assert "Add --yes; nothing was sent" in err
    assert regal.stats()["requests"] == 0
    code, out, _ = try_row(path, "--event", "Lesson Booked", "--send", "--yes", call="track")
    assert code == 0
    assert "2 billable events: 1 x track event and 1 x contact updated (or created)" in out
    assert regal.events()[0]["name"] == "Lesson Booked"


def test_nothing_leaves_by_a_connection_that_is_a_dry_run(try_row, file, regal, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(dry_run=True))
    code, out, _ = try_row(file(contact(100)), "--send")
    assert code == 0
    assert "Nothing was sent or kept: the connection 'regal_default' or [regal] dry_run says dry run." in out
    assert regal.stats()["requests"] == 0


class TestTheLedger:
    def test_a_message_id_that_was_sent(self, try_row, file, regal):
        path = file(contact(100, message_id="m-1"))
        arguments = ("--event", "X", "--send", "--yes")
        assert try_row(path, *arguments, call="track")[0] == 0
        code, out, _ = try_row(path, *arguments, call="track")
        assert code == 0
        assert "skipped, duplicate: its message id was sent before" in out
        assert regal.stats()["requests"] == 1

    def test_a_newer_no_on_record(self, try_row, file):
        no = {**CONSENT, "sms_opt_in": False, "sms_opt_in_at": "2026-04-01T00:00:00Z"}
        assert try_row(file(contact(100, **no)), "--send")[0] == 0
        _, out, _ = try_row(file(contact(100, **CONSENT)))
        assert "withheld, older: a newer decision of this person is on record" in out
        assert "smsOptIn" not in json.dumps(request_in(out))

    def test_a_person_who_must_not_be_contacted(self, try_row, file, run):
        try_row(file(contact(1)), "--send")
        run("suppress", "add", "(212) 555-0100")
        code, out, _ = try_row(file(contact(100)), "--send")
        assert code == 0
        assert "skipped, suppressed: this person must not be contacted" in out
        assert out.endswith("Nothing to send; nothing was kept.\n")


class TestOtherRowsOfTheSource:
    def test_a_newer_no_behind_the_row_bars_its_yes_and_it_is_not_sent_alone(self, try_row, file, regal):
        no = {"sms_opt_in": False, "sms_opt_in_at": "2026-04-01T00:00:00Z"}
        path = file(contact(100, **CONSENT), contact(101), contact(100, **no))
        code, out, err = try_row(path, "--send")
        assert code == 1
        assert "withheld, older: a newer decision" in out
        assert "Compared with all 3 rows of the source." in out
        assert "error: This row can't be sent alone: other rows of the source change what is sent of it." in err
        assert regal.stats()["requests"] == 0
        assert try_row(path, "--row", 3, "--send")[0] == 0

    def test_an_earlier_row_with_the_same_message_id(self, try_row, file):
        path = file(contact(100, message_id="m"), contact(101, message_id="m"))
        _, out, _ = try_row(path, "--event", "X", "--row", 2, call="track")
        assert "skipped, duplicate" in out
        assert "withheld" not in out

    def test_no_more_is_read_than_is_needed(self, try_row, here):
        path = here / "rows.jsonl"
        path.write_text(json.dumps(contact(100)) + "\nno json\n")
        code, out, _ = try_row(path)
        assert code == 0
        assert "Compared" not in out


class TestTasks:
    @pytest.fixture
    def examples(self, here, tmp_path, monkeypatch, airflow_db):
        folder = airflow_db.parent / "dags"
        for one in EXAMPLES.glob("*.py"):
            shutil.copy(one, folder)
        path = make_warehouse(tmp_path / "warehouse.db", datetime.now(UTC))
        monkeypatch.setenv("AIRFLOW_CONN_REGAL_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
        monkeypatch.setenv("AIRFLOW_CONN_REGAL_SANDBOX", os.environ["AIRFLOW_CONN_REGAL_DEFAULT"])
        yield path
        for one in folder.glob("*.py"):
            one.unlink()

    def test_a_row_of_a_query_and_an_event_of_the_examples(self, run, examples, regal):
        code, out, err = run("try", "--dag", "regal_contacts_and_events", "--task", "contacts", "--row", 3)
        assert (code, err) == (0, "")
        assert "Row 3 of the task regal_contacts_and_events.contacts, run try__" in out
        arguments = ("--dag", "regal_first_events", "--task", "loan_application_approved", "--send")
        code, out, _ = run("try", *arguments)
        assert code == 2
        assert "The task 'loan_application_approved' will send it again: it has no message id." in out
        code, out, _ = run("try", *arguments, "--yes")
        assert code == 0
        assert regal.events()[0]["body"] == request_in(out)

    def test_a_row_of_a_sync_is_shown_and_never_sent_alone(self, run, examples, regal):
        with closing(sqlite3.connect(examples)) as connection:
            rows = connection.execute("SELECT subscribed, ip FROM consents ORDER BY id").fetchall()
        number = next(n for n, (subscribed, ip) in enumerate(rows, 1) if subscribed and ip)
        code, out, err = run("try", "--dag", "regal_opt_in_sync", "--task", "opt_ins", "--row", number, "--send")
        assert code == 1
        assert "A sync compares all rows of its source; this one was looked at alone." in out
        assert "opt-in of" in out
        assert "error: A row of a sync can't be sent alone" in err
        assert regal.stats()["requests"] == 0

    def test_what_can_not_be_tried_is_one_sentence_and_exit_code_1(self, run, examples):
        code, out, err = run("try", "--dag", "regal_first_events", "--task", "nope")
        assert (code, out) == (1, "")
        assert err.startswith("error: The DAG regal_first_events has no task 'nope'. Tasks of it with rows for Regal: ")


def test_a_query_with_a_mapping(run, here, tmp_path, monkeypatch):
    with closing(sqlite3.connect(tmp_path / "w.db")) as connection, connection:
        connection.execute("CREATE TABLE t (who TEXT, tier TEXT)")
        connection.execute("INSERT INTO t VALUES ('anne', 'gold')")
    monkeypatch.setenv("AIRFLOW_CONN_W", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "w.db")}))
    arguments = ("try", "--sql", "SELECT * FROM t", "--sql-conn-id", "w", "--call", "track", "--event", "Upgraded")
    mapping = '{"who": "user_id", "tier": "properties.plan"}'
    code, out, _ = run(*arguments, "--mapping", mapping)
    assert code == 0
    assert request_in(out)["name"] == "Upgraded"
    assert request_in(out)["properties"] == {"plan": "gold"}
    twice = '{"who": ["user_id", "properties.who"], "tier": null}'
    assert request_in(run(*arguments, "--mapping", twice)[1])["properties"] == {"who": "anne"}
    assert "mapping['who'] must be text, or None" in run(*arguments, "--mapping", '{"who": 5}')[2]
    assert run(*arguments, "--mapping", "{who}")[2].startswith("error: --mapping is not JSON")
    assert "There is no row 2: the source has 1." in run(*arguments, "--mapping", mapping, "--row", 2)[2]
    assert run("try", "--sql", "SELEC", "--sql-conn-id", "w", "--call", "identify")[2].startswith("error: The query ")
    assert "isn't defined" in run("try", "--sql", "x", "--sql-conn-id", "nope", "--call", "identify")[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--row", "1"], "name one source"),
        (["--dag", "d"], "--dag needs --task"),
        (["--dag", "d", "--task", "t", "--call", "track"], "--call: not with --dag"),
        (["--dag", "d", "--task", "t", "--run-id", "r", "--logical-date", "2d"], "name one of them"),
        (["--file", "f"], "--file needs --call"),
        (["--file", "f", "--call", "track", "--task", "t"], "--task: only with --dag"),
        (["--file", "f", "--call", "track", "--map-index", "1"], "--map-index: only with --dag"),
        (["--sql", "s", "--call", "track"], "--sql and --sql-conn-id belong together"),
        (["--sql", "s", "--sql-conn-id", "c", "--call", "track", "--format", "csv"], "--format: only with --file"),
    ],
)
def test_wrong_usage_is_exit_code_2_in_both_front_ends(run, capsys, arguments, told):
    with pytest.raises(SystemExit) as stopped:
        run("try", *arguments)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err
    args = airflow_parser().parse_args(["regal", "try", *arguments])
    with pytest.raises(SystemExit) as stopped:
        args.func(args)
    assert stopped.value.code == 2
