"""What is recorded for an acknowledged event."""

from __future__ import annotations

import json

from airflow_provider_regal.client.receipt import Receipt
from airflow_provider_regal.events import Consent, Payload, Withheld

PAYLOAD = Payload(
    "identify",
    {"userId": "anne-1", "traits": {"firstName": "Zerubbabel", "phones": {"+12125550147": {}}}},
    withheld=tuple(
        Withheld(
            Consent(f"+121255501{i:02}", "sms", True, None, f"phones[{i}]"),
            "no timestamp: send the time the person agreed",
        )
        for i in range(50)
    ),
    notes=("a note",),
)


def test_a_receipt_says_what_happened():
    receipt = Receipt.of(PAYLOAD, http_status=200, seconds=1.23456, tries=3)
    assert receipt.as_dict() == {
        "call": "identify",
        "status": "acknowledged",
        "http_status": 200,
        "seconds": 1.235,
        "tries": 3,
        "opt_ins_withheld": 50,
    }
    assert receipt.opt_ins_withheld[0] == "phones[0] sms: no timestamp: send the time the person agreed"
    assert receipt.notes == ("a note",)


def test_a_dry_run_is_not_acknowledged():
    receipt = Receipt.of(PAYLOAD, http_status=None, seconds=0.0, tries=0)
    assert (receipt.status, receipt.http_status, receipt.tries) == ("dry_run", None, 0)


def test_a_receipt_is_small_json_without_personal_data():
    receipt = Receipt.of(PAYLOAD, http_status=200, seconds=1.0, tries=1)
    text = json.dumps(receipt.as_dict()) + repr(receipt)
    assert len(json.dumps(receipt.as_dict())) < 2_000
    for secret in ("anne-1", "Zerubbabel", "2125550147"):
        assert secret not in text
