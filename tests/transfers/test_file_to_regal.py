"""The rows of files to Regal, in a real Airflow."""

from __future__ import annotations

import gzip
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import airflow
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath

from airflow_provider_regal.operators._files import find_files
from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
from tests.ledger_file import dead_letters

AIRFLOW_2 = airflow.__version__.startswith("2.")


def a_dag(name, *, retries=0):
    return DAG(
        dag_id=name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": retries, "retry_delay": timedelta(0)},
    )


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


def deliver(run_dag, name, **options):
    """Run the operator; gives the state of the run and the report."""
    with a_dag(name, retries=options.pop("retries", 0)) as dag:
        FileToRegalOperator(task_id="files", **options)
    run = run_dag(dag)
    (ti,) = run.get_task_instances()
    report = ti.xcom_pull(task_ids="files", key="regal_report")
    return str(run.state), report


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def person(number, **more):
    return {"user_id": f"u{number}", "phone": f"+1212555{number:04d}", **more}


def test_json_lines_become_contacts_plain_and_zipped_in_the_order_of_their_names(run_dag, regal, files):
    (files / "b.jsonl").write_bytes(lines(person(101, plan="gold")))
    (files / "a.jsonl.gz").write_bytes(gzip.compress(lines(person(101, plan="silver"), person(102))))
    (files / "c.jsonl.gz").write_bytes(lines(person(103)))  # a client has decompressed it
    (files / "other.txt").write_bytes(b"no JSON")

    state, report = deliver(run_dag, "jsonl", path=f"{files}/*.jsonl*", call="identify")

    assert state == "success"
    assert (report["read"], report["acknowledged"], report["rejected"]) == (4, 4, 0)
    assert regal.contact(user_id="u101")["traits"] == {"plan": "gold"}
    assert regal.contact(user_id="u103")
    assert regal.stats()["contract_findings"] == {}


def test_bad_lines_are_rejected_with_file_and_line_and_the_others_are_delivered(
    run_dag, regal, regal_ledger, files, capfd, caplog
):
    content = lines(person(101)) + b'{"user_id": "hidden-5150", "phone": ' + b"\n" + b"[]\n" + lines(person(102))
    (files / "a.jsonl").write_bytes(content + lines({"phone": "not a phone"}) + b'{"user_id": "cut')

    state, report = deliver(run_dag, "bad_lines", path=str(files / "a.jsonl"), call="identify")

    assert state == "failed"
    assert (report["read"], report["acknowledged"], report["rejected"]) == (6, 2, 4)
    letters = dead_letters(regal_ledger, report["delivery"])
    assert [letter["place"] for letter in letters] == [f"a.jsonl line {line}" for line in (2, 3, 5, 6)]
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "4 rejected, more than max_rejected=0" in logged
    assert "hidden-5150" not in logged
    assert letters[0]["payload"] == {"line": '{"user_id": "hidden-5150", "phone": '}
    assert letters[2]["payload"] == {"phone": "not a phone"}
    assert all("hidden" not in reason for reason in report["reasons"])


def test_csv_becomes_events(run_dag, regal, regal_ledger, files):
    (files / "a.csv").write_text("user_id;amount;note\nu1;5;\nu2;7;two\nu3\n")

    state, report = deliver(
        run_dag, "csv", path=files / "a.csv", format="csv", delimiter=";", call="track", event="Paid",
        types={"amount": int}, max_rejected=1,
    )  # fmt: skip

    assert state == "success"
    assert (report["acknowledged"], report["rejected"]) == (2, 1)
    assert [letter["place"] for letter in dead_letters(regal_ledger)] == ["a.csv line 4"]
    bodies = {event["body"]["userId"]: event["body"]["properties"] for event in regal.events()}
    assert bodies == {"u1": {"amount": 5}, "u2": {"amount": 7, "note": "two"}}


def test_parquet_becomes_contacts_with_its_types(run_dag, regal, regal_ledger, files):
    table = pa.table(
        {
            "user_id": ["u1", "u2"],
            "sms_opt_in": [True, None],
            "sms_opt_in_at": pa.array([1_772_460_309_123_456_789, None], pa.timestamp("ns", "UTC")),
            "sms_opt_in_ip": ["203.0.113.9", None],
            "phone": ["+12125550101", "+12125550102"],
            "visits": [3, 4],
            "prefs": [{"a": [1]}, None],
            "bad": pa.array([None, b"\x00"]),
        }
    )
    pq.write_table(table, files / "a.parquet")

    state, report = deliver(
        run_dag, "parquet", path=f"file://{files}/*.parquet", format="parquet", call="identify", max_rejected=1
    )

    assert state == "success"
    assert (report["acknowledged"], report["rejected"]) == (1, 1)
    assert [letter["place"] for letter in dead_letters(regal_ledger)] == ["a.parquet row 2"]
    contact = regal.contact(user_id="u1")
    assert contact["traits"] == {"visits": 3, "prefs": {"a": [1]}}
    assert contact["phones"]["+12125550101"]["sms"]["status"] == "Subscribed"


def test_a_glob_that_finds_nothing_gives_no_rows_and_a_path_that_finds_nothing_fails(run_dag, regal, files, capfd):
    state, report = deliver(run_dag, "empty", path=f"{files}/*.jsonl", call="identify")
    assert (state, report["read"]) == ("success", 0)
    state, _ = deliver(run_dag, "empty_min", path=f"{files}/*.jsonl", call="identify", min_rows=1)
    assert state == "failed"
    assert "fewer than min_rows=1" in "".join(capfd.readouterr())
    state, _ = deliver(run_dag, "missing", path=f"{files}/a.jsonl", call="identify")
    assert state == "failed"
    assert "There is no file" in "".join(capfd.readouterr())


def test_what_the_storage_says_is_shown_and_is_retried(run_dag, regal, files, capfd, monkeypatch):
    (files / "a.jsonl").write_bytes(lines(person(101)))

    def refuse(self, path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.open", refuse)
    state, _ = deliver(run_dag, "refused", path=f"{files}/*.jsonl", call="identify")
    assert state == "failed"
    said = "".join(capfd.readouterr())
    assert f"The files can't be read (PermissionError: [Errno 13] Permission denied: '{files}/a.jsonl')" in said
    assert regal.stats()["requests"] == 0


def test_the_path_is_templated(run_dag, regal, files):
    with a_dag("templated") as dag:
        FileToRegalOperator(task_id="files", path=[str(files / "{{ dag.dag_id }}.jsonl")], call="identify")
    (files / "templated.jsonl").write_bytes(lines(person(101)))
    assert str(run_dag(dag).state) == "success"
    assert regal.contact(user_id="u101")


def test_a_file_that_breaks_off_sends_nothing(run_dag, regal, files, capfd):
    whole = gzip.compress(b"".join(lines(person(number)) for number in range(100, 2_000)))
    (files / "a.jsonl.gz").write_bytes(whole[:-100])
    state, _ = deliver(run_dag, "broken", path=f"{files}/*", call="identify")
    assert state == "failed"
    assert "a.jsonl.gz breaks off or is damaged after line" in "".join(capfd.readouterr())
    assert regal.stats()["requests"] == 0


def test_columns_named_like_our_marks_are_columns(run_dag, regal, files):
    (files / "a.jsonl").write_bytes(lines({"user_id": "u1", "$skip": "x", "$event": "track", "$row": {"user_id": "v"}}))
    state, report = deliver(run_dag, "marks", path=str(files / "a.jsonl"), call="track", event="Paid")
    assert (state, report["acknowledged"]) == ("success", 1)
    (event,) = regal.events()
    assert event["body"]["userId"] == "u1"
    assert event["body"]["properties"] == {"$skip": "x", "$event": "track", "$row": {"user_id": "v"}}


class TestPaths:
    def names(self, *paths):
        return [file.name for file in find_files(map(str, paths))]

    def test_each_glob_is_sorted_and_each_file_comes_once(self, files):
        for name in ("b.jsonl", "a.jsonl", "deep/er/c.jsonl", "x[1].jsonl", "q?.jsonl", "sp ace #%20.jsonl"):
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            (files / name).write_bytes(lines({"name": name}))
        assert self.names(files / "[ab].jsonl") == ["a.jsonl", "b.jsonl"]
        assert self.names(files / "b*", files / "[ab].jsonl") == ["b.jsonl", "a.jsonl"]
        assert self.names(files / "**/*.jsonl")[:3] == ["a.jsonl", "b.jsonl", "deep/er/c.jsonl"]
        assert self.names(f"file://{files}/*/*/*.jsonl") == ["deep/er/c.jsonl"]
        for literal in ("x[1].jsonl", "q?.jsonl", "sp ace #%20.jsonl"):
            (file,) = find_files([str(files / literal)])
            with file.open() as stream:
                assert json.loads(stream.read()) == {"name": literal}

    def test_files_of_one_name_are_told_apart(self, files):
        for folder in ("one", "two"):
            (files / folder).mkdir()
            (files / folder / "a.jsonl").touch()
        assert self.names(files / "*/a.jsonl") == ["one/a.jsonl", "two/a.jsonl"]
        assert all(
            "files/one" in name or "files/two" in name for name in self.names(files / "one/a*", files / "two/a*")
        )

    @pytest.mark.parametrize(
        ("path", "error", "complaint"),
        [("a/*.jsonl", ValueError, "must be absolute"), ("{}", OSError, "is a folder"), ("{}/x", OSError, "no file")],
    )
    def test_paths_that_cannot_be_meant(self, files, path, error, complaint):
        with pytest.raises(error, match=complaint):
            find_files([path.format(files)])

    def test_object_storage(self):
        if AIRFLOW_2:
            from airflow.io.store import attach
        else:
            from airflow.sdk.io import attach
        memory = fsspec.filesystem("memory")
        attach("memory", fs=memory)
        memory.pipe({"/bucket/day=1/b.jsonl": b"{}", "/bucket/day=1/a.jsonl": b"{}", "/bucket/other/a.jsonl": b""})
        found = find_files(["memory://bucket/day=*/*.jsonl"])
        assert [file.name for file in found] == ["day=1/a.jsonl", "day=1/b.jsonl"]
        with found[0].open() as stream:
            assert stream.read() == b"{}"
        path = ObjectStoragePath("memory://aws_default@bucket/a.jsonl")
        operator = FileToRegalOperator(task_id="a", path=[path], call="identify")
        assert operator.source()[-1].startswith("memory://aws_default@")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"format": "xml", "call": "identify"}, "format must be one of"),
        ({}, "call must say what the rows are"),
        ({"call": "identify", "include": ["page"]}, "include is for"),
        ({"format": "segment", "include": "page"}, "must be a list"),
        ({"format": "segment", "include": ["alias"]}, "must be a list of page, screen"),
        ({"format": "segment", "call": "track"}, "call: not for"),
        ({"format": "segment", "mapping": {"a": None}, "types": {"a": int}}, "mapping, types: not for"),
        ({"call": "identify", "delimiter": ";"}, "for format='csv'"),
        ({"call": "identify", "format": "csv", "delimiter": ";;"}, "one character"),
    ],
)
def test_options_that_do_not_go_together_are_said_when_the_dag_is_written(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        FileToRegalOperator(task_id="files", path="/x/*.jsonl", **options)


def test_the_source_is_the_rendered_paths_and_the_format():
    one = FileToRegalOperator(task_id="a", path="/x/a.jsonl", call="identify")
    same = FileToRegalOperator(task_id="b", path=[Path("/x/a.jsonl")], call="track", event="X")
    assert one.source() == same.source() == ("file", "jsonl", "/x/a.jsonl")
    assert FileToRegalOperator(task_id="c", path="/x/a.jsonl", format="segment").source() != one.source()


def test_a_pipe_that_a_glob_finds_is_skipped_with_a_warning(files, caplog):
    os.mkfifo(files / "a.jsonl")
    (files / "b.jsonl").write_bytes(lines(person(101)))
    assert [found.name for found in find_files([f"{files}/*.jsonl"])] == ["b.jsonl"]
    assert "a.jsonl is skipped: it is not a regular file" in caplog.text


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"format": "csv", "encoding": "latin-99"}, "encoding must be the name of one that Python knows"),
        ({"format": "csv", "encoding": "base64"}, "encoding must be the name of one that Python knows"),
        ({"format": "jsonl", "encoding": "cp1252"}, "encoding is for format='csv'"),
        ({"format": "jsonl", "delimiter": ";"}, "delimiter is for format='csv'"),
        ({"format": "segment", "values": {"Yes": True}}, "values: not for format='segment'"),
    ],
)
def test_options_of_csv_that_cannot_be_right_are_errors_when_the_dag_is_written(options, complaint):
    call = {} if options["format"] == "segment" else {"call": "identify"}
    with pytest.raises(ValueError, match=complaint):
        FileToRegalOperator(task_id="t", path="/x", **call, **options)


def test_a_file_of_another_program_is_read_by_delimiter_encoding_mapping_and_values(run_dag, regal, files):
    text = (
        "Kundennr;Telefon;Vorname;SMS erlaubt;am;IP\n"
        "42;+12125550101;J\u00fcrgen;Ja;2026-03-02 14:05:09 UTC;203.0.113.9\n"
        "43;+12125550102;Zo\u00eb;Nein;;\n"
    )
    (files / "export.csv").write_bytes(text.encode("cp1252"))
    state, report = deliver(
        run_dag,
        "foreign",
        path=f"{files}/export.csv",
        format="csv",
        delimiter=";",
        encoding="cp1252",
        call="identify",
        mapping={
            "Kundennr": "user_id",
            "Telefon": "phone",
            "Vorname": "first_name",
            "SMS erlaubt": "sms_opt_in",
            "am": "sms_opt_in_at",
            "IP": "sms_opt_in_ip",
        },
        values={"Ja": True, "Nein": False},
    )
    assert (state, report["acknowledged"]) == ("success", 2)
    one, other = (regal.contact(user_id=user_id) for user_id in ("42", "43"))
    assert one["traits"] == {"firstName": "J\u00fcrgen"}
    assert one["phones"]["+12125550101"]["sms"]["status"] == "Subscribed"
    assert other["phones"]["+12125550102"]["sms"]["status"] == "Unsubscribed"
