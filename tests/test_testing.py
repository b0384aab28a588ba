"""``airflow_provider_regal.testing``: the sandbox in a test process."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from airflow_provider_regal.testing import ManualClock, Sandbox

DOCUMENTATION = (Path(__file__).parents[1] / "docs" / "sandbox.md").read_text(encoding="utf-8")
PHONE = "+12125550100"
BODY = {"userId": "u1", "traits": {"phones": {PHONE: {}}, "emails": {"ines@example.com": {}}}}


def post(sandbox: Sandbox, body: object = BODY, *, key: str = "sandbox-key", timeout: float = 5) -> int:
    connection = http.client.HTTPConnection(urlsplit(sandbox.url).netloc, timeout=timeout)
    try:
        headers = {"Authorization": key, "Content-Type": "application/json"}
        connection.request("POST", "/events", json.dumps(body), headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_it_listens_on_a_free_loopback_port_while_the_block_runs():
    with Sandbox() as one, Sandbox() as two:
        assert one.url != two.url
        assert one.url.startswith("http://127.0.0.1:")
        assert (post(one), post(two)) == (200, 200)
        url = one.url
    assert one.url == url
    with pytest.raises(ConnectionRefusedError):
        post(one)


def test_the_connection_is_what_airflow_wants():
    with Sandbox(api_key="mine") as regal:
        assert json.loads(regal.connection()) == {"conn_type": "regal", "host": regal.url, "password": "mine"}
        assert json.loads(regal.connection(rate_limit=50, dry_run=True))["extra"] == {"rate_limit": 50, "dry_run": True}


def test_airflow_reads_the_connection():
    from airflow.models.connection import Connection

    with Sandbox() as regal:
        connection = Connection.from_json(regal.connection(rate_limit=50))
        assert (connection.conn_type, connection.host, connection.password) == ("regal", regal.url, "sandbox-key")
        assert connection.extra_dejson == {"rate_limit": 50}


def test_reading_waits_until_everything_received_is_processed():
    with Sandbox() as regal:
        for number in range(200):
            post(regal, {"userId": f"u{number}", "traits": {"phones": {f"+1212555{number:04d}": {}}}})
        assert len(regal.contacts()) == 200
        assert all(event["processed"] for event in regal.events())
        assert regal.stats()["pending"] == 0


def test_a_contact_is_found_by_any_identifier_and_must_match_all_given():
    with Sandbox() as regal:
        post(regal)
        by_phone = regal.contact(phone="(212) 555-0100")
        assert by_phone == regal.contact(email="ines@example.com") == regal.contact(user_id="u1")
        assert by_phone["user_id"] == "u1"
        assert regal.contact(phone=PHONE, user_id="other") is None
        assert regal.contact(phone="+14155550199") is None
        with pytest.raises(ValueError, match="needs a phone"):
            regal.contact()


def test_events_can_be_narrowed_to_those_stored():
    with Sandbox() as regal:
        post(regal)
        post(regal, key="wrong")
        assert [len(regal.events()), len(regal.events(stored=True)), len(regal.events(stored=False))] == [2, 1, 1]


def test_faults_can_be_given_at_the_start_and_replaced():
    with Sandbox(faults=[{"on": {"requests": [1]}, "do": {"status": 500}}]) as regal:
        assert [post(regal), post(regal)] == [500, 200]
        regal.set_faults([{"do": {"status": 503}}])
        assert post(regal) == 503
        with pytest.raises(ValueError, match="rule 1: unknown key 'oops'"):
            regal.set_faults([{"oops": 1, "do": {"status": 503}}])
        assert post(regal) == 503
    with pytest.raises(ValueError, match="rule 1"):
        Sandbox(faults=[{"do": {}}])


def test_reset_forgets_everything():
    with Sandbox() as regal:
        post(regal)
        regal.reset()
        assert (regal.events(), regal.contacts(), regal.stats()["requests"]) == ([], [], 0)


def test_an_outage_keeps_the_port_and_the_data():
    with Sandbox() as regal:
        post(regal)
        url = regal.url
        for _ in range(3):
            regal.stop()
            with pytest.raises(ConnectionRefusedError):
                post(regal)
            assert len(regal.contacts()) == 1  # still readable while down
            regal.start()
            assert regal.url == url
        assert post(regal) == 200
        assert regal.stats()["requests"] == 2


def test_an_outage_closes_connections_kept_open():
    with Sandbox() as regal:
        connection = http.client.HTTPConnection(urlsplit(regal.url).netloc, timeout=5)
        connection.request("GET", "/sandbox/stats")
        connection.getresponse().read()
        open_socket = connection.sock
        regal.stop()
        assert open_socket.recv(10) == b""
        connection.close()


def test_starting_and_stopping_twice_does_nothing():
    regal = Sandbox()
    with pytest.raises(RuntimeError, match="not been started"):
        _ = regal.url
    regal.stop()
    regal.start()
    url = regal.url
    regal.start()
    assert regal.url == url
    regal.stop()
    regal.stop()


def test_it_stops_at_once_with_hanging_requests_open_and_leaves_no_thread():
    before = threading.active_count()
    with Sandbox(faults=[{"do": {"hang": True}}]) as regal:
        callers = [threading.Thread(target=_ignore_hang_up, args=(regal,)) for _ in range(3)]
        for caller in callers:
            caller.start()
        while regal.stats()["requests"] < 3:
            pass
        start = time.monotonic()
    assert time.monotonic() - start < 2
    for caller in callers:
        caller.join(5)
    assert threading.active_count() == before


def _ignore_hang_up(regal: Sandbox) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        post(regal, timeout=30)


def test_many_clients_at_once_are_all_counted():
    with Sandbox() as regal:
        threads = [
            threading.Thread(target=lambda part=part: [post(regal, {"userId": f"{part}-{i}"}) for i in range(20)])
            for part in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = regal.stats()
        assert (stats["requests"], stats["stored"], stats["hidden_profiles"]) == (160, 160, 160)


def test_the_clock_can_be_moved_by_the_test():
    clock = ManualClock()
    with Sandbox(rate_limit=1, clock=clock) as regal:
        assert [post(regal), post(regal)] == [200, 429]
        clock.advance(1)
        assert post(regal) == 200


def test_the_fixture_gives_a_running_sandbox(regal_sandbox):
    assert post(regal_sandbox) == 200
    assert regal_sandbox.contact(user_id="u1")["primary_phone"] == PHONE


def test_the_fixture_gives_an_empty_ledger_to_each_test(regal_sandbox, regal_ledger, monkeypatch):
    from airflow_provider_regal.hooks.regal import RegalHook

    assert not regal_ledger.exists()
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal_sandbox.connection())
    RegalHook().track("Lesson Booked", user_id="u1", message_id="m1")
    assert regal_ledger.stat().st_size > 0


def test_no_test_knows_what_another_has_sent(regal_sandbox, regal_ledger, monkeypatch):
    test_the_fixture_gives_an_empty_ledger_to_each_test(regal_sandbox, regal_ledger, monkeypatch)
    assert regal_sandbox.stats()["requests"] == 1


def test_the_faults_of_the_documentation_can_be_used():
    (faults,) = re.findall(r"```json\n(.*?)```", DOCUMENTATION, re.DOTALL)
    with Sandbox(faults=json.loads(faults)) as regal:
        assert [post(regal) for _ in range(49)].count(503) == 0
        assert post(regal) == 503


def test_it_works_without_pytest_and_without_airflow():
    code = (
        "import sys\n"
        "sys.modules['pytest'] = None\n"
        "sys.modules['airflow'] = None\n"
        "from airflow_provider_regal import testing\n"
        "with testing.Sandbox() as regal:\n"
        "    print(regal.stats()['requests'], hasattr(testing, 'regal_sandbox'))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_environment())
    assert run.stdout == "0 False\n", run.stderr


def _environment() -> dict[str, str]:
    paths = [path for path in sys.path if path]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
