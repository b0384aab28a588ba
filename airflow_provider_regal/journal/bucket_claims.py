"""Claims of dead letters on object storage: how they are written, and what became of each.

Who takes letters, or gives them back, adds a line to a file of the run folder, and that by the folder's log: each entry
is made only if nobody made its number, so a claim holds against another redelivery and against the task itself. What
became of the letters is an object of its own for each line, since only one redelivery ever writes that.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.claim import Claim
from airflow_provider_regal.journal.progress import Outcome

CLAIMS: Final = "redelivered"
CLAIMS_FILE: Final = "redelivered.jsonl"


def claim_line(token: str, by: str, positions: Collection[int]) -> bytes:
    """Write that letters are taken.

    :param token: tells this occasion from others.
    """
    return _line({"token": token, "by": by, "positions": sorted(positions)})


def return_line(positions: Collection[int]) -> bytes:
    """Write that letters are given back."""
    return _line({"returned": sorted(positions)})


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def read_claims(written: bytes, bucket: Bucket) -> dict[int, Claim]:
    """Read who has which letter.

    :param written: the lines.
    :param bucket: the run folder they are of.
    :raises StorageError: what became of them cannot be read.
    """
    taken: dict[int, Claim] = {}
    for line in written.splitlines():
        told = json.loads(line)
        for position in told.get("returned", ()):
            taken.pop(position, None)
        taken.update(dict.fromkeys(told.get("positions", ()), Claim(told.get("by", ""), token=told.get("token", ""))))
    if not taken:
        return taken
    wanted = {_key(claim.token) for claim in taken.values()} & bucket.list(CLAIMS).keys()
    outcomes = {key: json.loads(content or b"{}") for key, content in bucket.get_many(sorted(wanted)).items()}
    return {
        position: Claim(claim.by, outcomes.get(_key(claim.token), {}).get(str(position)), token=claim.token)
        for position, claim in taken.items()
    }


def write_outcomes(bucket: Bucket, token: str, outcomes: Mapping[int, Outcome]) -> None:
    """Say of all letters that were taken on one occasion what became of them, as far as it is known.

    :raises StorageError: it cannot be written.
    """
    bucket.put(
        _key(token), json.dumps({str(position): outcomes[position].value for position in sorted(outcomes)}).encode()
    )


def _key(token: str) -> str:
    return f"{CLAIMS}/{token}.json"
