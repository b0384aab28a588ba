"""The only file that names Airflow's import paths: the same names on Airflow 2.11 and on every 3.x.

Each block tries the paths of the Airflow version in its comment and falls back to those of the versions before it.
Airflow's own layer for this, ``airflow.providers.common.compat.sdk``, is newer than most released versions of Airflow:
their constraints pin a common-compat that lacks it, or lacks some of these names.
"""

try:  # Airflow 3.0
    from airflow.sdk import BaseOperator, Context, ObjectStoragePath, get_current_context
    from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory
except ImportError:  # Airflow 2.11
    from airflow.decorators.base import DecoratedOperator, task_decorator_factory
    from airflow.io.path import ObjectStoragePath
    from airflow.models.baseoperator import BaseOperator
    from airflow.operators.python import get_current_context
    from airflow.utils.context import Context

try:  # Airflow 3.1
    from airflow.sdk import BaseHook
    from airflow.sdk.definitions.context import context_merge
except ImportError:  # Airflow 2.11, 3.0
    from airflow.hooks.base import BaseHook
    from airflow.utils.context import context_merge

try:  # Airflow 3.2
    from airflow.sdk.bases.decorator import determine_kwargs
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # Airflow 2.11, 3.0, 3.1
    from airflow.configuration import conf
    from airflow.exceptions import AirflowException, AirflowFailException
    from airflow.utils.operator_helpers import determine_kwargs

try:  # Airflow 3.1, and the last of 3.0
    from airflow.sdk.log import mask_secret
except ImportError:
    try:  # Airflow 3.0
        from airflow.sdk.execution_time.secrets_masker import mask_secret
    except ImportError:  # Airflow 2.11
        from airflow.utils.log.secrets_masker import mask_secret

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "BaseHook",
    "BaseOperator",
    "Context",
    "DecoratedOperator",
    "ObjectStoragePath",
    "conf",
    "context_merge",
    "determine_kwargs",
    "get_current_context",
    "mask_secret",
    "task_decorator_factory",
]
