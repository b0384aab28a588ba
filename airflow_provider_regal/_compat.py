"""The only file that names Airflow's import paths; the same names on 2.11 and 3.x."""

from airflow.providers.common.compat.sdk import (
    SET_DURING_EXECUTION,
    AirflowException,
    AirflowFailException,
    BaseHook,
    BaseOperator,
    BaseOperatorLink,
    Context,
    DecoratedOperator,
    ObjectStoragePath,
    XCom,
    conf,
    context_merge,
    determine_kwargs,
    get_current_context,
    mask_secret,
    task_decorator_factory,
)

__all__ = [
    "SET_DURING_EXECUTION",
    "AirflowException",
    "AirflowFailException",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "Context",
    "DecoratedOperator",
    "ObjectStoragePath",
    "XCom",
    "conf",
    "context_merge",
    "determine_kwargs",
    "get_current_context",
    "mask_secret",
    "task_decorator_factory",
]
