"""``contract``: infer a contract from rows, check a file, and list the types that Regal keeps."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest
from airflow import settings as airflow_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_regal.cli import build_parser
from airflow_provider_regal.cli.contract import Inferred
from airflow_provider_regal.cli.task_source import source_of
from airflow_provider_regal.events import Identify, Track, to_payload
from airflow_provider_regal.events.data_contract import DIALECT, DataContract
from airflow_provider_regal.hooks.regal import RegalHook
from tests.delivery.consents import NOW

DAG = """
from datetime import datetime, timezone
from airflow import DAG
from airflow_provider_regal.decorators.regal import regal_task
from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from airflow_provider_regal.operators.rows import RegalRowsOperator

with DAG("shop", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
    RegalRowsOperator(
        task_id="orders", call="track", event="Order Placed", mapping={"total": "properties.amount"}, types={"id": str},
        contract="/data/no_such_contract.json",
        rows=[{"user_id": "u1", "id": 7, "total": 5, "timestamp": "2020-01-01T00:00:00Z"}],
    )
    RegalOptInSyncOperator(task_id="consents", rows=[])
"""


@pytest.fixture
def warehouse(tmp_path, monkeypatch):
    path = tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE customers (user_id, phone, plan, score, since)")
        connection.executemany(
            "INSERT INTO customers VALUES (?, ?, ?, ?, ?)",
            [
                ("u1", "+12125550101", "gold", 1, None),
                ("u2", None, "silver", 2.5, "2026-03-02"),
                (None, "12", "x", 1, 1),
            ],
        )


@pytest.fixture
def dag_file(airflow_db):
    """Put the DAG into Airflow's folder."""
    file = Path(airflow_settings.DAGS_FOLDER) / "shop.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(DAG)
    yield file
    file.unlink()


@pytest.fixture
def infer(run, home, warehouse, monkeypatch):
    """Infer a contract; returns the exit code, the contract, and what was said."""
    monkeypatch.delenv("AIRFLOW__REGAL__LEDGER_CONN_ID", raising=False)

    def command(*arguments):
        code, out, err = run("contract", "infer", *arguments)
        return code, json.loads(out) if out else None, err

    command.customers = ("--sql-conn-id", "warehouse", "--sql", "SELECT * FROM customers", "--call", "identify")
    command.orders = (
        "--sql-conn-id", "warehouse", "--sql", "SELECT user_id, score FROM customers WHERE user_id IS NOT NULL",
        "--call", "track", "--event", "Order Placed",
    )  # fmt: skip
    return command


class TestInfer:
    def test_a_query(self, infer, home):
        code, contract, err = infer(*infer.customers)
        assert (code, contract) == (
            0,
            {
                "$schema": DIALECT,
                "traits": {
                    "type": "object",
                    "properties": {
                        "plan": {"type": "string"},
                        "score": {"type": "number"},
                        "since": {"type": "string"},
                    },
                    "required": ["plan", "score"],
                    "additionalProperties": False,
                },
            },
        )
        assert "2 rows read into the contract: 3 traits" in err
        assert "1 row would be rejected, and left out here:" in err
        assert "gold" not in err
        assert not (home / "regal").exists(), "nothing is written to a ledger"

    def test_no_more_rows_than_asked_for(self, infer):
        _, contract, _ = infer(*infer.customers, "--rows", 1)
        assert set(contract["traits"]["properties"]) == {"plan", "score"}

    def test_a_file(self, infer, tmp_path):
        path = tmp_path / "orders.csv"
        path.write_text("user_id,event,id\nu1,Order Placed,1\nu2,Order Sent,2\n")
        _, contract, err = infer("--file", path, "--call", "track")
        assert {name: set(schema["properties"]) for name, schema in contract["events"].items()} == {
            "Order Placed": {"id"}, "Order Sent": {"id"},
        }  # fmt: skip
        assert "2 events" in err

    def test_mapping_is_honoured(self, infer):
        _, contract, _ = infer(*infer.customers, "--mapping", '{"plan": "traits.tariff", "since": null}')
        assert set(contract["traits"]["properties"]) == {"tariff", "score"}

    def test_a_mapping_of_no_column_is_an_error(self, infer):
        code, contract, err = infer(*infer.customers, "--mapping", '{"plans": "traits.tariff"}')
        assert (code, contract) == (1, None)
        assert "mapping names 'plans', and no row of the source has such a column" in err

    def test_a_task_of_a_dag_as_its_dry_run_sees_the_rows(self, infer, dag_file):
        code, contract, err = infer("--dag", "shop", "--task", "orders")
        assert code == 0, err
        assert contract["events"]["Order Placed"]["properties"] == {
            "amount": {"type": "integer"}, "id": {"type": "string"},
        }  # fmt: skip
        named = build_parser().parse_args(["contract", "infer", "--dag", "shop", "--task", "orders"])
        with pytest.raises(ValueError, match=r"The contract /data/no_such_contract\.json can't be read"):
            source_of(named)  # as other commands do
        code, _, err = infer("--dag", "shop", "--task", "consents")
        assert code == 1
        assert "An opt-in sync sends nothing but consent" in err

    def test_rows_of_which_none_can_be_sent_make_no_contract(self, infer, tmp_path):
        path = tmp_path / "rows.jsonl"
        path.write_text('{"plan": "gold"}\n')
        code, contract, err = infer("--file", path, "--call", "identify", "--output", tmp_path / "c.json")
        assert (code, contract, (tmp_path / "c.json").exists()) == (1, None, False)
        assert "Of 1 row, none could be sent. Top reason: user_id, phone, email: at least one is needed" in err


class TestOutput:
    def test_a_file_is_written_and_meets_what_it_was_made_from(self, infer, run, tmp_path, deliver, monkeypatch):
        file = tmp_path / "contract.json"
        assert infer(*infer.customers, "--output", file)[:2] == (0, None)
        assert run("contract", "validate", file) == (0, f"{file} is a contract: 3 traits\n", "")
        report = deliver([{"user_id": "u1", "plan": "gold", "score": 1}], call="identify", contract=file)
        assert report.acknowledged == 1
        report = deliver([{"user_id": "u1", "plan": "gold"}], call="identify", contract=file)
        assert report.rejected == 1

    def test_one_that_exists_is_not_replaced_unless_that_is_asked_for(self, infer, tmp_path):
        file = tmp_path / "contract.json"
        file.write_text("mine")
        code, _, err = infer(*infer.customers, "--output", file)
        assert (code, file.read_text()) == (1, "mine")
        assert "exists: --merge adds to it what it lacks, --force replaces it" in err
        assert infer(*infer.customers, "--output", file, "--force")[0] == 0
        assert "traits" in json.loads(file.read_text())

    def test_merge_adds_what_it_lacks_and_leaves_what_it_has(self, infer, tmp_path):
        file = tmp_path / "contract.json"
        mine = {"title": "Ours", "traits": {"required": ["plan"]}, "events": {"Order Sent": {}}, "$defs": {"a": {}}}
        file.write_text(json.dumps(mine))
        assert infer(*infer.orders, "--output", file, "--merge")[0] == 0
        code, _, err = infer(*infer.customers, "--output", file, "--merge")
        merged = json.loads(file.read_text())
        assert (code, list(merged["events"])) == (0, ["Order Placed", "Order Sent"])
        assert {name: merged[name] for name in ("title", "traits", "$defs")} == {
            name: mine[name] for name in ("title", "traits", "$defs")
        }
        assert f"Left as it was in {file}: traits" in err

    def test_merge_into_what_is_no_contract_is_an_error(self, infer, tmp_path):
        file = tmp_path / "contract.json"
        file.write_text('{"traits": {"type": "strng"}}')
        code, _, err = infer(*infer.customers, "--output", file, "--merge")
        assert (code, f"The contract {file} is wrong: traits.type 'strng'" in err) == (1, True)

    def test_a_file_that_can_not_be_written_is_an_error(self, infer, tmp_path):
        file = tmp_path / "none" / "contract.json"
        code, _, err = infer(*infer.customers, "--output", file)
        assert (code, f"error: {file} can't be written (No such file or directory)" in err) == (1, True)

    @pytest.mark.parametrize("more", [("--merge",), ("--force",), ("--output", "c.json", "--merge", "--force")])
    def test_options_that_do_not_go_together(self, infer, more):
        with pytest.raises(SystemExit):
            infer(*infer.customers, *more)


class TestWhatIsInferred:
    def of(self, *values):
        inferred = Inferred()
        for value in values:
            inferred.add({"name": "A", "properties": value})
        return inferred.contract()["events"]["A"]

    def test_names_that_are_data_are_not_written(self):
        schema = self.of({"a": 1, "phones_of": {"+12125550100": 1, "b": 2}, "days": {"2026-03-02": 5}})
        assert "2125550100" not in json.dumps(schema)
        assert schema["properties"]["phones_of"] == schema["properties"]["days"] == {"type": "object"}
        assert self.of({"map": {f"key{number}": 1 for number in range(500)}})["properties"]["map"] == {"type": "object"}

    def test_nothing_is_said_of_what_was_not_seen(self):
        assert self.of({}) == {"type": "object"}
        assert self.of({"a": [], "b": None})["properties"] == {"a": {"type": "array"}, "b": {"type": "null"}}

    def test_several_types_and_nulls(self):
        schema = self.of({"a": 1, "b": None, "c": [1, "x"]}, {"a": 1.5, "b": "x", "c": [None]})
        assert schema["properties"] == {
            "a": {"type": "number"},
            "b": {"type": ["null", "string"]},
            "c": {"type": "array", "items": {"type": ["integer", "null", "string"]}},
        }

    def test_traits_of_events_are_known_but_not_required_of_contacts(self):
        inferred = Inferred()
        inferred.add({"traits": {"plan": "gold", "phones": {"+12125550100": {}}}})
        inferred.add({"name": "A", "traits": {"score": 5}})
        assert inferred.contract()["traits"] == {
            "type": "object",
            "properties": {"plan": {"type": "string"}, "score": {"type": "integer"}},
            "required": ["plan"],
            "additionalProperties": False,
        }


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcde"), inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.lists(
    st.tuples(st.sampled_from(["A", "B", None]), st.dictionaries(st.sampled_from(["plan", "n", "x y", "é"]), VALUES)),
    min_size=1,
    max_size=8,
)


def body_of(event, values):
    kind = Identify(user_id="u", traits=values) if event is None else Track(event=event, user_id="u", properties=values)
    return to_payload(kind, now=NOW).body


class TestEveryContractThatIsInferred:
    @given(EVENTS)
    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    def test_is_met_by_what_it_was_inferred_from(self, events):
        bodies = [body_of(*event) for event in events]
        contract = contract_of(bodies)
        assert [contract.faults_of(body) for body in bodies] == [[]] * len(bodies)

    @given(EVENTS, st.data())
    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    def test_rejects_a_missing_an_unknown_and_a_wrong_one(self, events, data):
        bodies = [body_of(*event) for event in events]
        contract = contract_of(bodies)
        body = data.draw(st.sampled_from(bodies))
        part = "properties" if "name" in body else "traits"
        values = body.get(part, {})
        same = [other.get(part, {}) for other in bodies if other.get("name") == body.get("name")]

        def faults(changed):
            return [fault.field for fault in contract.faults_of({**body, part: changed})]

        if any(same):
            assert faults({**values, "unheard_of": 1}) == [f"{part}.unheard_of"]
        for name in values:
            if all(name in other for other in same):
                rest = {one: value for one, value in values.items() if one != name}
                assert faults(rest) == [f"{part}.{name}"]
            if not any(isinstance(other.get(name), list) for other in same):
                assert faults({**values, name: []}) == [f"{part}.{name}"]


def contract_of(bodies):
    inferred = Inferred()
    for body in bodies:
        inferred.add(body)
    contract = DataContract(inferred.contract())
    contract.load(None)
    return contract


def test_a_date_is_inferred_as_the_text_that_regal_gets():
    assert contract_of([body_of(None, {"since": date(2026, 3, 2)})]).document["traits"]["properties"] == {
        "since": {"type": "string"}
    }


class TestValidate:
    def test_a_wrong_one_is_named_with_its_place(self, run, tmp_path, monkeypatch):
        (tmp_path / "c.json").write_text('{"events": {"A": {"propertys": {}}}}')
        monkeypatch.chdir(tmp_path)
        code, out, err = run("contract", "validate", "c.json")
        assert (code, out) == (1, "")
        assert f"error: The contract {tmp_path}/c.json is wrong: events.A.propertys is not checked in contracts" in err
        assert "can't be read: FileNotFoundError" in run("contract", "validate", "none.json")[2]


class TestTypes:
    def test_a_rejected_type_is_listed_accepted_and_sent(self, run, deliver):
        deliver([{"user_id": "u1", "total": 5}])
        assert "contract accept 'Lesson Booked: total' text" in str(deliver([{"user_id": "u1", "total": "5"}]).reasons)

        _, out, _ = run("contract", "types")
        (_, line) = out.splitlines()
        assert line.split()[:4] == ["Lesson", "Booked:", "total", "number"]
        code, out, err = run("contract", "accept", "Lesson Booked: total", "text")
        assert (code, "is sent as text from now on, no longer as number" in out) == (0, True)
        assert "until its support resets it" in err

        assert deliver([{"user_id": "u1", "total": "5"}]).acknowledged == 1
        assert deliver([{"user_id": "u1", "total": 5}]).rejected == 1
        found = run.json("contract", "types")["Lesson Booked: total"]
        assert (found["type"], found["since"][:2]) == ("text", "20")

    def test_a_name_that_is_not_on_record_is_an_error_with_what_was_meant(self, run, deliver):
        RegalHook()
        deliver([{"user_id": "u1", "plan": 5}], call="identify")
        code, _, err = run("contract", "accept", "traits.Plan", "text")
        assert code == 1
        assert "No type of 'traits.Plan' is on record in the account regal_default (did you mean 'traits.plan'?)" in err

    def test_the_account_is_named_where_there_are_several(self, run, deliver, ledger_path):
        deliver([{"user_id": "u1", "plan": 5}], call="identify")
        with closing(sqlite3.connect(ledger_path)) as ledger, ledger:
            ledger.execute("INSERT INTO regal_accounts (account, api_key_hash) VALUES ('other', 'x')")
            ledger.execute("INSERT INTO regal_types VALUES ('other', 'traits.plan', 'list', NULL)")
        assert "The ledger has 2 accounts" in run("contract", "types")[2]
        assert run.json("contract", "types", "--account", "other") == {"traits.plan": {"type": "list", "since": None}}
        assert run("contract", "accept", "traits.plan", "text", "--account", "other")[0] == 0
        assert run.json("contract", "types", "--account", "regal_default")["traits.plan"]["type"] == "number"

    def test_without_a_ledger_there_is_nothing_to_list(self, run, home, monkeypatch):
        monkeypatch.delenv("AIRFLOW__REGAL__LEDGER_CONN_ID", raising=False)
        assert "There is no ledger yet" in run("contract", "types")[2]
        assert not (home / "regal").exists()
