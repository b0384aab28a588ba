"""A bare aiohttp loop: as many senders as connections take ready-made bodies from a list; answers are read and checked.

No database, no mapping, no validation, no JSON, no journal: the cost of sending alone with the same client.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from benchmarks import contacts
from benchmarks.senders.work import Work

_made: dict[int, list[bytes]] = {}


def prepare(work: Work) -> None:
    """Make the bodies; not measured."""
    read = contacts.rows(Path(work.database), work.first, work.count)
    _made[work.first] = [contacts.encoded(contacts.body_of(row)) for row in read]


def send(work: Work) -> int:
    """Send the bodies; returns how many were acknowledged."""
    return asyncio.run(post_all(work))


async def post_all(work: Work) -> int:
    """Post the prepared bodies."""
    headers = {"Authorization": work.key, "Content-Type": "application/json"}
    bodies, acknowledged = iter(_made[work.first]), 0

    async def sender() -> None:
        nonlocal acknowledged
        for body in bodies:
            async with session.post(f"{work.url}/events", data=body, headers=headers) as response:
                await response.read()
                acknowledged += response.status == 200

    connector = aiohttp.TCPConnector(limit=work.connections)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(sender() for _ in range(work.connections)))
    return acknowledged
