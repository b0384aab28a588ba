"""The four event operators, run by a real Airflow against a real socket."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_regal._compat import AirflowException
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger.people.suppressions import suppress
from airflow_provider_regal.operators.identify import RegalIdentifyOperator
from airflow_provider_regal.operators.page import RegalPageOperator
from airflow_provider_regal.operators.screen import RegalScreenOperator
from airflow_provider_regal.operators.track import RegalTrackOperator
from tests.ledger.view import LedgerView
from tests.ledger_file import consents, deliveries, everything, outcomes
from tests.people import SECRETS

ANNE = {"phone": "+19175554444", "firstName": "Anne", "lastName": "Smith"}
CONSENT = {
    "channel": "sms",
    "subscribed": True,
    "timestamp": "2020-08-25T21:23:43Z",
    "ip": "198.51.100.54",
    "text": "I agree.",
}


def a_dag(name: str, *, retries: int = 0, **kwargs) -> DAG:
    return DAG(
        dag_id=name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": retries, "retry_delay": timedelta(0)},
        **kwargs,
    )


def only_task(run):
    (instance,) = run.get_task_instances()
    return instance


def pulled(run, task_id: str, map_index: int = -1):
    ti = next(ti for ti in run.get_task_instances() if ti.task_id == task_id and ti.map_index == map_index)
    return ti.xcom_pull(task_ids=task_id, map_indexes=map_index)


def test_each_operator_sends_its_event_once(run_dag, regal):
    with a_dag("one_of_each") as dag:
        identify = RegalIdentifyOperator(task_id="identify", user_id="anne", traits={**ANNE, "optIn": [CONSENT]})
        track = RegalTrackOperator(
            task_id="track",
            event="Loan Application Approved",
            user_id="anne",
            properties={"loanType": "Personal loan", "amount": 30000, "currency": "USD", "term": 12},
        )
        page = RegalPageOperator(task_id="page", user_id="anne", name="Pricing", properties={"path": "/pricing"})
        screen = RegalScreenOperator(task_id="screen", user_id="anne", name="Home", category="App")
        identify >> track >> page >> screen

    run = run_dag(dag)

    assert str(run.state) == "success"
    bodies = [event["body"] for event in regal.events()]
    assert [body.get("name") for body in bodies] == [None, "Loan Application Approved", "pageview", "screen"]
    assert bodies[1]["properties"] == {"loanType": "Personal loan", "amount": 30000, "currency": "USD", "term": 12}
    assert bodies[2]["properties"] == {"path": "/pricing", "name": "Pricing"}
    assert bodies[3]["properties"] == {"name": "Home", "category": "App"}
    assert {body["eventSource"] for body in bodies} == {"airflow"}
    assert regal.stats()["contract_findings"] == {}
    assert regal.contact(user_id="anne")["phones"]["+19175554444"]["sms"]["status"] == "Subscribed"


def test_xcom_holds_status_and_seconds_and_nothing_personal(run_dag, regal):
    with a_dag("xcom") as dag:
        RegalIdentifyOperator(task_id="identify", traits={**ANNE, "optIn": [CONSENT, {**CONSENT, "ip": None}]})

    report = pulled(run_dag(dag), "identify")

    assert report == {
        "call": "identify",
        "status": "acknowledged",
        "seconds": report["seconds"],
        "tries": 1,
        "opt_ins_withheld": 1,
    }
    assert 0 <= report["seconds"] < 60


def test_an_event_is_a_delivery_of_one_row(run_dag, regal, regal_ledger):
    with a_dag("one_row") as dag:
        RegalTrackOperator(task_id="track", event="Lesson Booked", user_id="anne", phone="(917) 555-4444")

    run = run_dag(dag)

    (delivery,) = deliveries(regal_ledger)
    assert (delivery["dag_id"], delivery["task_id"], delivery["run_id"]) == ("one_row", "track", run.run_id)
    assert (delivery["state"], delivery["read_rows"], delivery["acknowledged"]) == ("finished", 1, 1)
    (line,) = outcomes(regal_ledger)
    told = (line["call"], line["event"], line["user_id"], line["phone"], line["status"], line["payload"])
    assert told == ("track", "Lesson Booked", "anne", "+19175554444", "acknowledged", None)


def test_consent_and_message_ids_are_asked_of_the_ledger_by_every_operator(run_dag, regal):
    no = {"channel": "sms", "subscribed": False, "timestamp": "2021-01-01T00:00:00Z"}
    with a_dag("asks") as dag:
        out = RegalIdentifyOperator(task_id="out", traits={**ANNE, "optIn": [no]})
        older = RegalIdentifyOperator(task_id="older", traits={**ANNE, "plan": "gold", "optIn": [CONSENT]})
        event = RegalTrackOperator(task_id="event", event="Visited", traits={**ANNE, "optIn": [CONSENT]})
        out >> older >> event

    run = run_dag(dag)

    assert str(run.state) == "success"
    assert [pulled(run, task)["opt_ins_withheld"] for task in ("out", "older", "event")] == [0, 1, 1]
    anne = regal.contact(phone=ANNE["phone"])
    assert anne["phones"][ANNE["phone"]]["sms"]["status"] == "Unsubscribed"
    assert anne["traits"]["plan"] == "gold"


def test_templates_are_rendered_in_every_field_a_user_would_template(run_dag, monkeypatch, regal):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_OF_TEST", regal.connection())
    params = {
        "conn": "regal_of_test", "id": "anne", "phone": "(917) 555-4444", "email": "Anne@Example.com",
        "event": "Quote Requested", "time": "2026-03-02T14:05:09Z", "source": "crm", "brand": "north",
    }  # fmt: skip
    with a_dag("templates", params=params) as dag:
        RegalTrackOperator(
            task_id="track",
            regal_conn_id="{{ params.conn }}",
            event="{{ params.event }}",
            user_id="{{ params.id }}",
            phone="{{ params.phone }}",
            email="{{ params.email }}",
            traits={"note": ["{{ params.id }}", {"deep": "{{ params.id }}"}]},
            opt_in=[{**CONSENT, "timestamp": "{{ params.time }}"}],
            properties={"who": "{{ params.id }}"},
            timestamp="{{ params.time }}",
            event_source="{{ params.source }}",
            sub_brand="{{ params.brand }}",
        )
        RegalPageOperator(
            task_id="page", user_id="anne", name="{{ params.event }}", category="{{ params.source }}",
            regal_conn_id="regal_of_test",
        )  # fmt: skip
        RegalIdentifyOperator(
            task_id="identify",
            regal_conn_id="{{ params.conn }}",
            ledger_conn_id="{{ 'regal_test_' + 'ledger' }}",
            user_id="anne",
            phones={"+12125550100": {"label": "{{ params.id }}"}},
            emails={"a@example.com": {"label": "{{ params.id }}"}},
        )

    assert str(run_dag(dag).state) == "success"

    by_name = {event["body"].get("name"): event["body"] for event in regal.events()}
    assert by_name["Quote Requested"] == {
        "userId": "anne",
        "traits": {
            "note": ["anne", {"deep": "anne"}],
            "subBrand": "north",
            "phones": {
                "+19175554444": {
                    "smsOptIn": {
                        "subscribed": True,
                        "timestamp": "2026-03-02 14:05:09 +00:00",
                        "ip": "198.51.100.54",
                        "text": "I agree.",
                    }
                }
            },
            "emails": {"anne@example.com": {}},
        },
        "name": "Quote Requested",
        "properties": {"who": "anne"},
        "originalTimestamp": "2026-03-02 14:05:09 +00:00",
        "eventSource": "crm",
    }
    assert by_name["pageview"]["properties"] == {"name": "Quote Requested", "category": "crm"}
    assert by_name[None]["traits"]["phones"]["+12125550100"]["label"] == "anne"
    assert by_name[None]["traits"]["emails"]["a@example.com"]["label"] == "anne"


@pytest.mark.parametrize("outcome", ["sent", "invalid", "refused", "no answer"])
def test_no_personal_data_and_no_key_reaches_the_database_or_the_log(
    outcome, run_dag, regal, regal_ledger, monkeypatch, everything_stored, capfd
):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection())
    if outcome == "refused":
        regal.set_faults(
            [{"on": {"every": 1}, "do": {"status": 400, "body": f"text:{SECRETS['phone']} of {SECRETS['name']}"}}]
        )
    if outcome == "no answer":
        regal.stop()
    # Airflow itself stores no value of a macro, so whatever is found was stored by us.
    with a_dag(f"privacy_{outcome.replace(' ', '_')}", user_defined_macros={"secret": SECRETS.get}) as dag:
        contact = {
            "user_id": "{{ secret('id') }}",
            "traits": {
                "firstName": "{{ secret('name') }}",
                "phone": "{{ secret('phone') }}" + ("999" if outcome == "invalid" else ""),
                "email": "{{ secret('email') }}",
                "optIn": [{**CONSENT, "ip": "{{ secret('ip') }}"}],
            },
            "outage_patience": 0.5,
        }
        RegalIdentifyOperator(task_id="identify", **contact)
        RegalTrackOperator(task_id="track", event="Visited", properties={"by": "{{ secret('name') }}"}, **contact)
        # Deeper than Airflow's own masking looks.
        deep = {"a": {"b": {"c": {"d": {"e": {"f": "{{ secret('name') }}", "phone": "{{ secret('e164') }}"}}}}}}
        RegalPageOperator(task_id="page", user_id="{{ secret('id') }}", properties=deep, outage_patience=0.5)

    run = run_dag(dag)

    assert str(run.state) == ("success" if outcome == "sent" else "failed")
    stored, logged = everything_stored(), "".join(capfd.readouterr())
    assert "privacy_" in stored
    assert "identify" in logged
    for secret in (*SECRETS.values(), SECRETS["e164"][2:], regal.api_key):
        assert secret not in logged, "in the log"
    for secret in (*SECRETS.values(), SECRETS["e164"][2:]):
        assert not [row for row in stored.splitlines() if secret in row], "in the database"
    assert regal.api_key.encode() not in everything(regal_ledger), "in the ledger, which knows it by its hash only"


def test_rendered_fields_show_the_keys_only(run_dag, regal, everything_stored):
    with a_dag("keys_only", user_defined_macros={"secret": SECRETS.get}) as dag:
        RegalIdentifyOperator(
            task_id="identify",
            user_id="{{ secret('id') }}",
            traits={"firstName": "{{ secret('name') }}", "phone": "{{ secret('phone') }}", "optIn": [CONSENT]},
        )

    run_dag(dag)

    assert "{firstName, optIn: [1], phone}" in everything_stored()


def test_mapped_operators_send_one_event_each_and_hide_what_came_from_a_template(run_dag, regal, everything_stored):
    with a_dag("mapped", user_defined_macros={"secret": SECRETS.get}) as dag:
        RegalTrackOperator.partial(
            task_id="track", event="Lesson Booked", traits={"firstName": "{{ secret('name') }}"}
        ).expand(user_id=["one", "two", "three"])

    run = run_dag(dag)

    assert str(run.state) == "success"
    assert sorted(event["body"]["userId"] for event in regal.events()) == ["one", "three", "two"]
    assert {event["body"]["traits"]["firstName"] for event in regal.events()} == {SECRETS["name"]}
    assert SECRETS["name"] not in everything_stored()
    assert [pulled(run, "track", index)["status"] for index in range(3)] == ["acknowledged"] * 3


WRONG_KEY = [{"on": {"every": 1}, "do": {"status": 401}}]
FORBIDDEN = [{"on": {"every": 1}, "do": {"status": 403, "body": "json"}}]
REFUSED = [{"on": {"every": 1}, "do": {"status": 422}}]
NO_ANSWER = [{"on": {"every": 1}, "do": {"drop": True}}]


@pytest.mark.parametrize(
    ("faults", "advice"),
    [
        pytest.param(WRONG_KEY, "Check the field 'API key'", id="401"),
        pytest.param(FORBIDDEN, "Check the field 'API key'", id="403"),
        pytest.param(REFUSED, "Fix the event", id="refused"),
        pytest.param(NO_ANSWER, "Look for it in Regal before you send it again", id="unknown"),
    ],
)
def test_what_cannot_succeed_is_not_retried_and_says_what_to_do(faults, advice, run_dag, regal, capfd):
    regal.set_faults(faults)
    with a_dag(f"hopeless_{advice[:5]}_{faults[0]['do'].get('status')}".replace(" ", "_"), retries=3) as dag:
        RegalTrackOperator(task_id="track", event="Lesson Booked", user_id="anne")

    run = run_dag(dag)

    assert str(only_task(run).state) == "failed"
    assert regal.stats()["requests"] == 1
    assert advice in "".join(capfd.readouterr())


def test_an_invalid_event_is_not_sent_nor_retried_and_every_fault_is_named(run_dag, regal, capfd):
    with a_dag("invalid", retries=3) as dag:
        RegalIdentifyOperator(
            task_id="identify",
            traits={"phone": "+15555555555", "optIn": [{**CONSENT, "timestamp": "the day before yesterday"}]},
            timestamp="soon",
        )

    run = run_dag(dag)

    assert str(only_task(run).state) == "failed"
    assert regal.stats()["requests"] == 0
    logged = "".join(capfd.readouterr())
    assert "(2 faults)" in logged
    for field in (
        "traits.phone: not a valid phone number",
        "timestamp: not",
    ):
        assert field in logged


def test_an_invalid_event_still_sends_its_opt_outs(run_dag, regal):
    no = {"channel": "sms", "subscribed": False}
    wrong = {"user_id": 1.5, "phone": "+12125550100", "opt_in": [no]}
    with a_dag("still") as dag:
        RegalTrackOperator(task_id="wrong", event="Booked", **wrong)

    assert str(only_task(run_dag(dag)).state) == "failed"
    (event,) = regal.events()
    assert event["body"]["traits"] == {"phones": {"+12125550100": {"smsOptIn": {"subscribed": False}}}}


def test_an_outage_fails_the_try_and_airflows_retry_delivers_it_once(run_dag, regal):
    regal.set_faults([{"on": {"requests": [1]}, "do": {"status": 503, "retry_after": 90}}])
    with a_dag("outage", retries=1) as dag:
        RegalTrackOperator(task_id="track", event="Lesson Booked", user_id="anne", outage_patience=5)

    run = run_dag(dag)

    assert str(only_task(run).state) == "success"
    assert [event["answer"] for event in regal.events()] == [503, 200]
    assert [event["stored"] for event in regal.events()] == [False, True]


def test_an_unknown_outcome_is_repeated_only_under_at_least_once(run_dag, regal):
    regal.set_faults([{"on": {"requests": [1]}, "do": {"drop": True}}])
    with a_dag("at_least_once") as dag:
        RegalTrackOperator(task_id="track", event="Lesson Booked", user_id="anne", guarantee="at_least_once")

    assert str(run_dag(dag).state) == "success"
    assert [event["stored"] for event in regal.events()] == [True, True]


def test_identify_repeats_an_unknown_outcome_by_default(run_dag, regal):
    regal.set_faults([{"on": {"requests": [1]}, "do": {"status": 502, "store": True}}])
    with a_dag("identify_repeats") as dag:
        RegalIdentifyOperator(task_id="identify", traits=ANNE)

    assert str(run_dag(dag).state) == "success"
    assert [event["answer"] for event in regal.events()] == [502, 200]


def executed(regal, operator):
    operator.execute({})
    return regal.events()[-1]["body"]


def test_consent_without_an_ip_goes_only_where_it_was_given_on_paper(regal):
    paper = {name: value for name, value in CONSENT.items() if name != "ip"}
    strict = RegalIdentifyOperator(task_id="strict", traits={**ANNE, "optIn": [paper]})
    lenient = RegalIdentifyOperator(task_id="lenient", traits={**ANNE, "optIn": [paper]}, require_ip=False)

    assert "smsOptIn" not in executed(regal, strict)["traits"]["phones"]["+19175554444"]
    assert executed(regal, lenient)["traits"]["phones"]["+19175554444"]["smsOptIn"]["subscribed"] is True


def test_consent_older_than_max_consent_age_is_withheld(regal):
    operator = RegalIdentifyOperator(
        task_id="old", traits={**ANNE, "optIn": [CONSENT]}, max_consent_age=timedelta(days=365)
    )
    assert "smsOptIn" not in executed(regal, operator)["traits"]["phones"]["+19175554444"]


def test_one_opt_out_closes_all_channels_of_the_phone_where_that_is_asked_for(regal):
    no = {"channel": "voice", "subscribed": False}
    operator = RegalIdentifyOperator(task_id="out", phone=ANNE["phone"], opt_in=[no], opt_out_scope="person")
    info = executed(regal, operator)["traits"]["phones"]["+19175554444"]
    assert info["smsOptIn"]["subscribed"] is info["voiceOptIn"]["subscribed"] is False


def test_a_person_who_is_suppressed_gets_no_event_but_is_opted_out(run_dag, regal, regal_ledger):
    with LedgerView(regal_ledger, account="regal_default").account() as account:
        suppress(account, ["user:anne"])
    no = {"channel": "sms", "subscribed": False}
    with a_dag("suppressed") as dag:
        track = RegalTrackOperator(task_id="track", event="Visited", user_id="anne")
        out = RegalIdentifyOperator(task_id="out", user_id="anne", phone=ANNE["phone"], opt_in=[no])
        track >> out
    run = run_dag(dag)
    assert [pulled(run, task)["status"] for task in ("track", "out")] == ["skipped", "skipped"]
    (event,) = regal.events()
    assert event["body"]["traits"] == {"phones": {"+19175554444": {"smsOptIn": {"subscribed": False}}}}
    assert [line["state"] for line in deliveries(regal_ledger)] == ["finished", "finished"]


@pytest.mark.parametrize("asked", [True, False])
def test_named_events_to_who_opted_out_are_skipped_where_that_is_asked_for(regal, asked):
    RegalHook().identify(user_id="anne", phone=ANNE["phone"], opt_in=[{"channel": "sms", "subscribed": False}])
    operator = RegalTrackOperator(task_id="t", event="Visited", user_id="anne", suppress_named_events=asked)
    operator.execute({})
    assert [event["name"] for event in regal.events()] == [None, *([] if asked else ["Visited"])]


@pytest.mark.parametrize(
    ("operator", "value"), [(RegalTrackOperator, "True"), (RegalPageOperator, 1), (RegalIdentifyOperator, True)]
)
def test_suppress_named_events_is_a_boolean_of_named_events(operator, value):
    more = {"event": "Visited"} if operator is RegalTrackOperator else {}
    with pytest.raises(ValueError, match="suppress_named_events"):
        operator(task_id="t", user_id="anne", suppress_named_events=value, **more)


def test_the_opt_out_of_an_invalid_event_is_sent_by_the_same_options_and_kept_in_the_same_ledger(
    regal, regal_ledger, tmp_path, monkeypatch
):
    other = tmp_path / "other" / "ledger.db"
    other.parent.mkdir()
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "sqlite", "host": str(other)}))
    no = {"channel": "voice", "subscribed": False}
    operator = RegalIdentifyOperator(
        task_id="out", phone=ANNE["phone"], opt_in=[no], timestamp="no time at all", opt_out_scope="person",
        ledger_conn_id="other",
    )  # fmt: skip

    with pytest.raises(AirflowException, match="invalid"):
        operator.execute({})

    info = regal.events()[-1]["body"]["traits"]["phones"]["+19175554444"]
    assert info["smsOptIn"]["subscribed"] is info["voiceOptIn"]["subscribed"] is False
    assert set(consents(other)) == {("+19175554444", "sms"), ("+19175554444", "voice")}
    assert not regal_ledger.exists()


def test_naive_times_are_read_in_the_given_timezone(regal):
    operator = RegalTrackOperator(
        task_id="zoned",
        event="Visited",
        user_id="anne",
        timestamp="2026-03-02 09:00:00",
        properties={"at": datetime(2026, 7, 1, 12)},  # noqa: DTZ001
        timezone="America/New_York",
    )
    body = executed(regal, operator)
    assert body["originalTimestamp"] == "2026-03-02 14:00:00 +00:00"
    assert body["properties"]["at"] == "2026-07-01 16:00:00 +00:00"


def test_nulls_are_sent_only_when_asked(regal):
    usual = RegalIdentifyOperator(task_id="usual", traits={**ANNE, "plan": None})
    nulls = RegalIdentifyOperator(task_id="nulls", traits={**ANNE, "plan": None}, send_nulls=True)
    assert "plan" not in executed(regal, usual)["traits"]
    assert executed(regal, nulls)["traits"]["plan"] is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"guarantee": "exactly_once"}, "guarantee must be one of at_most_once, at_least_once"),
        ({"timezone": "Mars/Olympus"}, "timezone must be a name"),
    ],
)
def test_an_impossible_option_is_refused_when_the_dag_is_written(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        RegalTrackOperator(task_id="track", event="Visited", user_id="anne", **options)


def test_positional_arguments_are_refused():
    with pytest.raises((TypeError, Exception), match=r"keyword|positional"):
        RegalTrackOperator("Visited")


def test_texts_render_as_text_where_a_dag_renders_pythons_own_types(run_dag, regal):
    upstream = {"phone": "+442079460958", "zip": "02110", "id": "0x1F", "amount": "30000"}
    with a_dag("native", render_template_as_native_obj=True, params=upstream) as dag:
        RegalTrackOperator(
            task_id="native",
            user_id="{{ params.id }}",
            event="{{ 404 }}",
            phone="{{ params.phone }}",
            traits={"firstName": "{{ 7 }}", "address": {"postalCode": "{{ params.zip }}"}, "plan": "{{ 1 + 1 }}"},
            properties={"amount": "{{ params.amount | int }}", "list": "{{ [1, 2] }}"},
        )

    run = run_dag(dag)

    assert str(run.state) == "success"
    (event,) = regal.events()
    sent = event["body"]
    assert (sent["userId"], sent["name"]) == ("0x1F", "404")
    assert list(sent["traits"]["phones"]) == ["+442079460958"]
    assert sent["traits"]["firstName"] == "7"
    assert sent["traits"]["address"] == {"zipcode": "02110"}
    assert sent["traits"]["plan"] == 2  # a trait has the type that its template renders to
    assert sent["properties"] == {"amount": 30000, "list": [1, 2]}


def test_a_template_that_renders_as_none_is_no_person(run_dag, regal):
    with a_dag("nobody") as dag:
        RegalTrackOperator(task_id="nobody", event="Booked", user_id="{{ ti.xcom_pull('nope') }}")

    assert str(run_dag(dag).state) == "failed"
    assert regal.stats()["requests"] == 0
