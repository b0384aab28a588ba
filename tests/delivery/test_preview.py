"""A dry run counts and shows, and gives nothing away."""

from __future__ import annotations

from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.preview import preview
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.events import Track

TARGET = Target("regal_test", "http://127.0.0.1:9", "a-key")


def test_a_dry_run_counts_what_would_be_sent_and_shows_no_values():
    lines = []
    rows = [{"user_id": f"secret-{n}", "plan": "hidden"} for n in range(20)] + [{"plan": b"x", "user_id": "secret"}]
    rows.append(Track(user_id="secret-e", event="Booked"))
    report = preview(
        rows,
        DeliverySettings.of(call="track", event="Booked"),
        target=TARGET,
        log=lambda text, *told: lines.append(text % told),
    )
    assert (report.status, report.read, report.skipped, report.rejected) == ("dry_run", 22, 21, 1)
    assert report.acknowledged == report.requests == 0
    assert len(lines) == 4
    assert "21 of 22" in lines[-1]
    assert "secret" not in "".join(lines)
    assert "hidden" not in "".join(lines)


def test_limit_reads_no_further():
    rows = iter([{"user_id": str(n)} for n in range(9)])
    report = preview(rows, DeliverySettings.of(call="identify", limit=4), target=TARGET, log=lambda *_: None)
    assert report.read == 4
    assert len(list(rows)) == 5
