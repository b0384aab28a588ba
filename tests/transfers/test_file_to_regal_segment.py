"""A Segment archive to Regal: written by Segment's own client library, delivered as its destination would."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from segment.analytics.client import Client

from tests.ledger_file import dead_letters, everything
from tests.transfers.segment_archive import SegmentArchive
from tests.transfers.test_file_to_regal import deliver

WRITE_KEY = "wk-hidden-5150"
TERMS = "By clicking 'Submit' I agree to receive automated marketing SMS and calls."
NOW = datetime.now(UTC)
OFTEN = 25


def ago(**units):
    return (NOW - timedelta(**units)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "bucket"


@pytest.fixture
def archive(folder):
    with SegmentArchive(folder, failures=1) as running:
        yield running


def glob(folder):
    return f"{folder}/segment-logs/*/*/*.gz"


def say_everything(url, *, zipped):
    """What an application says in a day, with Segment's library for Python."""
    failed = []
    client = Client(
        WRITE_KEY,
        host=url,
        gzip=zipped,
        upload_size=10,
        upload_interval=0.2,
        on_error=lambda e, items: failed.append(e),
    )
    consent = {"subscribed": True, "timestamp": "2020-08-25T21:23:43Z", "text": TERMS}
    client.identify(
        "anne-smith",
        {
            "phone": "+1 (917) 555-4444",
            "email": "Anne@Example.com",
            "age": 30,
            "firstName": "Anne",
            "lastName": "Smith",
            "name": "Anne Smith",
            "address": {"postalCode": "10001", "state": "NY"},
            "optIn": [{"channel": "sms", "ip": "198.51.100.54", **consent}, {"channel": "voice", **consent}],
        },
        context={"ip": "10.0.0.1"},
    )
    cached = {"phone": "+19175554444", "age": 29, "optIn": [{"channel": "voice", **consent, "ip": "198.51.100.54"}]}
    for number in range(OFTEN):
        client.track(
            "anne-smith",
            "Loan Application Approved",
            {"loanType": "Personal loan", "amount": 30000 + number, "currency": "USD", "term": 12},
            context={"traits": cached},
        )
    client.page("anne-smith", "Loans", "Pricing", {"url": "https://example.com/pricing"})
    client.screen("anne-smith", name="Home")
    client.alias("old-id", "anne-smith")
    client.group("anne-smith", "a-company", {"employees": 5})
    client.track("anne-smith", "Not For Regal", integrations={"All": True, "Regal.io": False})
    client.track("anne-smith", "For Others", integrations={"All": False, "Amplitude": True})
    client.track("anne-smith", "For Regal", integrations={"All": False, "Regal": True})
    client.track(anonymous_id="a-7", event="Visited")
    client.flush()
    client.join()
    assert not failed


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("include", [[], ["page", "screen"]], ids=["as_regal_does", "with_pages"])
def test_what_the_real_client_says_arrives_once(
    run_dag, regal, regal_ledger, archive, folder, zipped, include, capfd, caplog
):
    say_everything(archive.url, zipped=zipped)
    archived = Counter(message["messageId"] for batch in archive.batches for message in batch)
    repeated = archived.total() - len(archived)
    assert len(archive.batches) > 2
    assert repeated == len(archive.batches[0]) > 1  # answered 500, and retried

    name = f"client_{zipped}_{len(include)}"
    state, report = deliver(run_dag, name, path=glob(folder), format="segment", include=include)

    assert state == "success"
    sent = 1 + OFTEN + 1 + len(include)
    assert (report["read"], report["acknowledged"]) == (archived.total(), sent)
    assert (report["rejected"], report["unknown"], report["skipped"]) == (0, 0, archived.total() - sent)
    assert report["opt_ins_withheld"] == 1
    assert dead_letters(regal_ledger) == []
    names = Counter(event["name"] for event in regal.events())
    assert names == Counter(
        {None: 1, "Loan Application Approved": OFTEN, "For Regal": 1}
        | ({"pageview": 1, "screen": 1} if include else {})
    )
    stats = regal.stats()
    assert stats["duplicates"] == 0
    assert stats["contract_findings"] == {}
    anne = regal.contact(user_id="anne-smith")
    assert anne["traits"] == {
        "firstName": "Anne", "lastName": "Smith", "age": 30, "address": {"zipcode": "10001", "state": "NY"}
    }  # fmt: skip
    phone = anne["phones"]["+19175554444"]
    assert phone["sms"]["status"] == "Subscribed"
    assert (phone["sms"]["ip"], phone["sms"]["timestamp"]) == ("198.51.100.54", "2020-08-25 21:23:43 +00:00")
    assert phone["voice"]["status"] == "No Status"  # recorded on a server, without the person's IP address
    logged = "".join(capfd.readouterr()) + caplog.text
    for reason in ("1 x alias", "1 x group", "2 x integrations switch Regal off", "1 x only an anonymous id"):
        assert reason in logged
    told = json.dumps(regal.events()) + logged
    assert WRITE_KEY not in told
    assert "messageId" not in told


def identify(user, at, opt_ins, **more):
    return {
        "type": "identify",
        "messageId": f"{user}-{at}",
        "userId": user,
        "timestamp": at,
        "channel": "browser",
        "context": {"ip": "198.51.100.7", "library": {"name": "analytics.js"}},
        "traits": {"phone": f"+1212555{user[1:]}", "optIn": opt_ins},
        **more,
    }


def test_the_newest_consent_of_all_files_holds_whatever_their_order(run_dag, regal, folder, archive):
    opt_in = {"channel": "sms", "subscribed": True, "timestamp": ago(days=30)}
    opt_out = {"channel": "sms", "subscribed": False, "timestamp": ago(days=2)}
    again = {"channel": "sms", "subscribed": True, "timestamp": ago(days=1)}
    later = {"context": {"ip": "198.51.100.9", "library": {"name": "analytics.js"}}}
    archive.write([identify("u0101", ago(days=2), [opt_out]), identify("u0102", ago(days=1), [again])], NOW)
    archive.write([identify("u0101", ago(days=30), [opt_in]), identify("u0102", ago(days=30), [opt_in])], NOW)
    # Traits are cached: a later call repeats the old opt-in.
    archive.write([identify("u0101", ago(days=1), [opt_in], **later), identify("u0102", ago(days=2), [opt_out])], NOW)
    archive.write([identify("u0103", ago(days=1), [opt_in], **later)], NOW)

    state, report = deliver(run_dag, "consent", path=glob(folder), format="segment")

    assert (state, report["acknowledged"]) == ("success", 7)
    status = {
        user: regal.contact(user_id=user)["phones"][f"+1212555{user[1:]}"]["sms"]
        for user in ("u0101", "u0102", "u0103")
    }
    assert status["u0101"]["status"] == "Unsubscribed"
    assert (status["u0102"]["status"], status["u0102"]["ip"]) == ("Subscribed", "198.51.100.7")
    assert status["u0103"]["status"] == "No Status"  # the IP address of a later call is not evidence
    subscribed = [
        event["body"]["userId"]
        for event in regal.events()
        if any(phone.get("smsOptIn", {}).get("subscribed") for phone in event["body"]["traits"]["phones"].values())
    ]
    assert subscribed == ["u0102"]


def test_bad_lines_of_an_archive_are_rejected_with_their_place_and_their_write_key_stays_where_it_is(
    run_dag, regal, regal_ledger, folder, capfd, caplog
):
    def track(user, **more):
        user = user and f"hidden-{user}"
        message = {"type": "track", "event": "Paid", "userId": user, "timestamp": ago(hours=1), "writeKey": WRITE_KEY}
        return json.dumps({**message, **more}).encode()

    lines = {
        2: track("u2")[:-20],
        3: b"[" + track("u3") + b"]",
        4: track("u4").replace(b'"userId": ', b'"userId": "other", "userId": '),
        5: track("u5", type=None),
        6: track("u6", event=None),
        7: track("u7", properties="none"),
        8: track(None),
        9: track("u9", properties={"x": float("nan")}),
        10: b"\xff" + track("u10"),
        11: track("u11", properties={"x": "y" * 2_000_000}),
        12: track("u12", timestamp="yesterday"),
        13: track("u13", integrations=["Regal"]),
        14: track("u14", timestamp=ago(days=30)),
        16: track("u16")[:-9],
    }
    content = b"\xef\xbb\xbf" + track("u1") + b"\r\n"
    content += b"".join(lines.get(number, track("u15")) + b"\n" for number in range(2, 17))
    day = folder / "segment-logs" / "source-1" / "1700000000000"
    day.mkdir(parents=True)
    (day / "a.gz").write_bytes(content[:-1])  # decompressed by a client, but not renamed
    (day / "b.gz").write_bytes(gzip.compress(track("u17")))

    state, report = deliver(run_dag, "bad_archive", path=glob(folder), format="segment", max_rejected=len(lines))

    assert state == "success"
    assert (report["read"], report["rejected"], report["acknowledged"]) == (17, len(lines), 3)
    assert sorted(event["body"]["userId"] for event in regal.events()) == ["hidden-u1", "hidden-u15", "hidden-u17"]
    places = [letter["place"] for letter in dead_letters(regal_ledger)]
    assert places == [f"source-1/1700000000000/a.gz line {number}" for number in lines]
    logged = "".join(capfd.readouterr()) + caplog.text
    assert WRITE_KEY not in logged
    assert WRITE_KEY.encode() not in everything(regal_ledger)
    assert "hidden-u" not in logged


def test_messages_are_sent_once_by_any_number_of_tries(run_dag, regal, folder, archive):
    names = [f"u{number:04d}" for number in range(100, 140)]
    archive.write([{"type": "track", "event": "Paid", "userId": u, "timestamp": ago(hours=1)} for u in names], NOW)
    regal.set_faults([{"on": {"from": 11, "to": 13}, "do": {"status": 503, "retry_after": 90}}])

    state, report = deliver(
        run_dag, "tries", path=glob(folder), format="segment", retries=6, outage_patience=30, max_connections=4
    )

    assert (state, report["acknowledged"]) == ("success", 40)
    assert sorted(event["body"]["userId"] for event in regal.events() if event["stored"]) == names


def test_a_dry_run_reads_the_archive_and_sends_nothing(run_dag, regal, folder, archive):
    messages = [
        {"type": kind, "event": "Paid", "userId": "u1", "timestamp": ago(hours=1)} for kind in ("track", "page")
    ]
    path = archive.write([*messages, {"type": None}], NOW)

    state, report = deliver(run_dag, "dry", path=path, format="segment", dry_run=True)

    assert (state, report["status"], report["read"], report["rejected"]) == ("success", "dry_run", 3, 1)
    assert regal.stats()["requests"] == 0
