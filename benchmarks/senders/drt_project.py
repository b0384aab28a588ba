"""drt-core: ``drt run`` of a project with an SQLite profile and a REST API destination, one event per request.

It renders the body with its template, keeps its history, and counts failed rows; the SQL rewrites the phone, nothing is
validated. Its rate limit is so high that it does not pace. It runs in this process, so its start is not measured.
"""

from __future__ import annotations

import json
import os
from contextlib import chdir

from benchmarks.senders.work import Work

_PHONE = "'+1' || replace(replace(replace(replace(phone, '(', ''), ')', ''), '-', ''), ' ', '')"
_SELECT = f"SELECT *, {_PHONE} AS written FROM"
_BODY = """\
{"userId": "{{ row.user_id }}",
 "traits": {"firstName": {{ row.first_name | tojson_safe }}, "lastName": {{ row.last_name | tojson_safe }},
            "plan": {{ row.plan | tojson_safe }}, "balance": {{ row.balance | tojson_safe }},
            "visits": {{ row.visits | tojson_safe }}, "signed_up": {{ row.signed_up | tojson_safe }},
            "campaign": {{ row.campaign | tojson_safe }},
            "phones": { {{ row.written | tojson_safe }}: {"isPrimary": true}},
            "emails": { {{ row.email | tojson_safe }}: {"isPrimary": true}}},
 "eventSource": "airflow"}"""


def make_project(work: Work) -> None:
    """Write the project, its sync and the database profile."""
    home, project = work.path / "home", work.path / "project"
    (home / ".drt").mkdir(parents=True, exist_ok=True)
    (project / "syncs").mkdir(parents=True, exist_ok=True)
    os.environ.update(HOME=str(home), DO_NOT_TRACK="1", BENCHMARK_KEY=work.key)
    profiles = {"warehouse": {"type": "sqlite", "database": work.database}}
    settings = {"name": "benchmark", "version": "0.1", "profile": "warehouse"}
    sync = {
        "name": name_of(work),
        "model": work.sql.replace("SELECT * FROM", _SELECT),
        "destination": {
            "type": "rest_api",
            "url": f"{work.url}/events",
            "method": "POST",
            "headers": {"Content-Type": "application/json"},
            "auth": {"type": "api_key", "header": "Authorization", "value_env": "BENCHMARK_KEY"},
            "body_template": _BODY,
        },
        "sync": {"mode": "full", "batch_size": 1_000, "rate_limit": {"requests_per_second": 1e6}, "on_error": "skip"},
    }
    # JSON is valid YAML.
    (home / ".drt" / "profiles.yml").write_text(json.dumps(profiles))
    (project / "drt_project.yml").write_text(json.dumps(settings))
    (project / "syncs" / f"{name_of(work)}.yml").write_text(json.dumps(sync))


def name_of(work: Work) -> str:
    """Return the name of a sync."""
    return f"contacts_{work.first}_{work.count}"


prepare = make_project


def send(work: Work) -> int:
    """Send the rows; returns how many it counts as synced."""
    from drt.cli.main import app

    with chdir(work.path / "project"):
        app(["run", "--select", name_of(work), "--quiet"], standalone_mode=False)
        results = json.loads((work.path / "project" / "target" / "drt" / "run_results.json").read_text())
    return sum(result["rows_synced"] for result in results["results"])
