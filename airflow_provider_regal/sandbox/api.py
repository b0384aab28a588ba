"""The side API: the sandbox's data as JSON, and its controls: reset, faults, and the API key."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from airflow_provider_regal.sandbox.account import Account
from airflow_provider_regal.sandbox.bodies import read_object
from airflow_provider_regal.sandbox.faults import FaultsError, parse_rules
from airflow_provider_regal.sandbox.keys import ACCOUNT
from airflow_provider_regal.sandbox.processing.contacts import Contact
from airflow_provider_regal.sandbox.processing.phones import e164

_FLAGS = {"true": True, "false": False}


async def get_contacts(request: web.Request) -> web.Response:
    """List contacts, most recently changed first; ``?phone=``, ``?email=``, ``?user_id=``, ``?hidden=true``."""
    _only(request, "phone", "email", "user_id", "hidden")
    account = request.app[ACCOUNT]
    hidden = _flag(request, "hidden") is True
    wanted = {key: value for key, value in request.query.items() if key != "hidden"}
    contacts = find_contacts(account, hidden=hidden, **wanted)
    return web.json_response([contact.to_json() for contact in contacts])


def find_contacts(
    account: Account,
    *,
    phone: str | None = None,
    email: str | None = None,
    user_id: str | None = None,
    hidden: bool = False,
) -> list[Contact]:
    """Find the contacts that have every given identifier; all of them if none is given."""
    asked = {
        "phone": phone and (e164(phone) or phone),
        "email": email and email.strip().lower(),
        "userId": user_id,
    }
    owners = [account.directory.owner(kind, value) for kind, value in asked.items() if value is not None]
    if not owners:
        return account.contacts(hidden=hidden)
    first = owners[0]
    if first is None or any(owner is not first for owner in owners):
        return []
    return [first] if first.visible or hidden else []


async def get_contact(request: web.Request) -> web.Response:
    """Return one profile."""
    contact = request.app[ACCOUNT].directory.get(int(request.match_info["id"]))
    if contact is None:
        raise web.HTTPNotFound(reason="No such contact")
    return web.json_response(contact.to_json())


async def get_events(request: web.Request) -> web.Response:
    """List requests, newest last; ``?after=N`` only those with a higher number, ``?stored=true`` only those stored."""
    _only(request, "after", "stored")
    after = request.query.get("after", "0")
    if not after.isdecimal():
        raise web.HTTPBadRequest(text=_message("after must be a request number"), content_type="application/json")
    stored = _flag(request, "stored")
    entries = request.app[ACCOUNT].journal.after(int(after))
    return web.json_response([entry.to_json() for entry in entries if stored in (None, entry.stored)])


async def get_stats(request: web.Request) -> web.Response:
    """Return the counts."""
    return web.json_response(request.app[ACCOUNT].stats())


async def post_reset(request: web.Request) -> web.Response:
    """Delete all data and counts; the fault rules stay."""
    request.app[ACCOUNT].reset()
    return web.json_response({"message": "forgotten: all contacts, events and counts"})


async def get_faults(request: web.Request) -> web.Response:
    """Return the fault rules, and how often each has fired."""
    return web.json_response(request.app[ACCOUNT].plan.to_json())


async def put_faults(request: web.Request) -> web.Response:
    """Replace the fault rules with the list in the body."""
    try:
        request.app[ACCOUNT].set_rules(parse_rules(json.loads(await read_body(request))))
    except FaultsError as error:
        raise web.HTTPBadRequest(text=_message(str(error)), content_type="application/json") from None
    except ValueError:
        text = "the body must be a JSON list of rules"
        raise web.HTTPBadRequest(text=_message(text), content_type="application/json") from None
    return await get_faults(request)


async def put_api_key(request: web.Request) -> web.Response:
    """Revoke the API key; the body contains the one to expect from now on."""
    document = read_object(await read_body(request)) or {}
    key = document.get("api_key")
    try:
        if document.keys() != {"api_key"} or not isinstance(key, str):
            raise ValueError('the body must be {"api_key": "..."}')
        request.app[ACCOUNT].set_api_key(key)
    except ValueError as error:
        raise web.HTTPBadRequest(text=_message(str(error)), content_type="application/json") from None
    return web.json_response({"message": "only the new key is accepted from now on"})


async def read_body(request: web.Request) -> bytes:
    """Read a body, with a time limit.

    :raises web.HTTPException: 413, it is too large; 408, it took too long.
    """
    if request.content.is_eof():  # the common case, which needs no timer
        return await request.read()
    limit_s = request.app[ACCOUNT].settings.request_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            return await request.read()
    except TimeoutError:
        text = _message(f"the body did not come within {limit_s:g} s")
        error = web.HTTPRequestTimeout(text=text, content_type="application/json")
    error.force_close()
    raise error


def _only(request: web.Request, *known: str) -> None:
    for key in request.query:
        if key not in known:
            text = f"unknown parameter {key}: there are {', '.join(known)}"
            raise web.HTTPBadRequest(text=_message(text), content_type="application/json")


def _flag(request: web.Request, key: str) -> bool | None:
    value = request.query.get(key)
    if value is None:
        return None
    if value not in _FLAGS:
        raise web.HTTPBadRequest(text=_message(f"{key} must be true or false"), content_type="application/json")
    return _FLAGS[value]


def _message(text: str) -> str:
    return json.dumps({"message": text})


ROUTES = [
    web.get("/sandbox/contacts", get_contacts),
    web.get(r"/sandbox/contacts/{id:\d{1,12}}", get_contact),
    web.get("/sandbox/events", get_events),
    web.get("/sandbox/stats", get_stats),
    web.post("/sandbox/reset", post_reset),
    web.get("/sandbox/faults", get_faults),
    web.put("/sandbox/faults", put_faults),
    web.put("/sandbox/api-key", put_api_key),
]
