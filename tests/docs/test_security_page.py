"""What the page about security says is kept, for how long, and where."""

from __future__ import annotations

import re
import stat

from airflow_provider_regal.get_provider_info import get_provider_info
from airflow_provider_regal.hooks.regal import RegalHook
from tests.docs.blocks import PROJECT

PAGE = (PROJECT / "docs" / "security-and-privacy.md").read_text()
OPTIONS = get_provider_info()["config"]["regal"]["options"]


def test_the_times_are_the_defaults_of_the_configuration():
    said = dict(re.findall(r"\| (\d+) days \| `\[regal\] (\w+)` \|", PAGE))
    assert {days: option for days, option in said.items() if OPTIONS[option]["default"] != days} == {}
    assert set(said.values()) == {"dead_letter_days", "plan_days", "history_days"}
    assert "| forever | `[regal] consent_days` |" in PAGE
    assert not OPTIONS["consent_days"]["default"]


def test_the_ledgers_file_is_its_owners_alone_and_holds_no_key(regal_sandbox, monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal_sandbox.connection())
    RegalHook().track("Lesson Booked", user_id="anne-smith")
    file = tmp_path / "regal" / "ledger.db"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file.parent, file)] == [0o700, 0o600]
    assert "mode 0700; the file 0600" in PAGE
    stored = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert b"anne-smith" in stored
    assert regal_sandbox.api_key.encode() not in stored
