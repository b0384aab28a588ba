"""The only file that names Airflow's import paths; the same names on 2.11 and 3.x."""

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    BaseHook,
    BaseOperator,
    Context,
    conf,
    mask_secret,
)

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "BaseHook",
    "BaseOperator",
    "Context",
    "conf",
    "mask_secret",
]
