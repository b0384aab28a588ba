"""Airflow's simple auth manager, with users who may only read some DAGs."""

from __future__ import annotations

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class DagAuthManager(SimpleAuthManager):
    """A user named ``only-a+b`` may read the DAGs a and b, and no others; the role counts as well."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        _, reads_some, dags = user.username.partition("only-")
        if reads_some and details is not None and details.id is not None and details.id not in dags.split("+"):
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
