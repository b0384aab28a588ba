"""The pages as mounted by Airflow: its own auth manager, tokens and database, and a real ledger."""

from __future__ import annotations

import os
from html import unescape
from pathlib import Path

import pytest

from airflow_provider_regal._compat import HAS_PAGES

if not HAS_PAGES:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def auth_manager(airflow_db: Path):
    """Create Airflow's auth manager, once: it signs tokens and decides permissions."""
    settings = {
        "AIRFLOW__CORE__AUTH_MANAGER": "tests.plugin.auth.DagAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of the tests that is long enough for HMAC with SHA-512, 64 bytes",
        "AIRFLOW__API__SECRET_KEY": "another secret of the tests",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    from airflow.api_fastapi.app import create_auth_manager

    yield create_auth_manager()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def site(auth_manager, regal_ledger, monkeypatch):
    """The pages below ``/regal``, in a user's browser; call it with a user's name and role."""
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from airflow_provider_regal.plugin import PREFIX, Lazy

    airflow = FastAPI()
    airflow.mount(PREFIX, Lazy())
    opened = []

    def browser(name: str | None = "ada", role: str = "ADMIN"):
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        client = TestClient(airflow, base_url="http://airflow.test", follow_redirects=False)
        if name is not None:
            client.cookies.set("_token", auth_manager.generate_jwt(SimpleAuthManagerUser(username=name, role=role)))
        opened.append(client)
        return client

    yield browser
    for client in opened:
        client.close()


@pytest.fixture
def text_of():
    """Return the text of a page, without its tags and style."""
    import re

    def text(answer) -> str:
        html = re.sub(r"<style>.*?</style>|<title>.*?</title>", " ", answer.text, flags=re.DOTALL)
        return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html))).strip()

    return text


@pytest.fixture
def token_of():
    """Return the token of the forms of a page."""
    import re

    def token(answer) -> str:
        return re.search(r'name="token" value="([^"]+)"', answer.text).group(1)

    return token
