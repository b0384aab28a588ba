"""The contract as a judge: the violations of ``StrictEventRequest`` of the OpenAPI description in a body."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from airflow_provider_regal.events import Payload

DESCRIPTION = Path(__file__).parents[1] / "regal-events.openapi.yaml"


@cache
def _validator() -> Draft202012Validator:
    components = yaml.safe_load(DESCRIPTION.read_text())["components"]
    schema = {"$ref": "#/components/schemas/StrictEventRequest", "components": components}
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def breaches(body: Any) -> list[str]:
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in _validator().iter_errors(body)]


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def as_sent(payload: Payload) -> dict[str, Any]:
    """Parse the bytes like any JSON reader; they must equal the body and satisfy the contract."""
    body = json.loads(payload.encoded.decode("utf-8"), parse_constant=_refuse)
    assert body == payload.body
    assert breaches(body) == []
    return body
