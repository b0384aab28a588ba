"""In Airflow without pages (2.11, 3.0), the plugin exists and adds none."""

from __future__ import annotations

import pytest

from airflow_provider_regal._compat import HAS_PAGES


@pytest.mark.skipif(HAS_PAGES, reason="this Airflow has pages")
def test_the_plugin_brings_nothing_where_airflow_has_no_pages():
    from airflow_provider_regal.operators._link import LINKS
    from airflow_provider_regal.plugin import RegalPlugin

    assert RegalPlugin.fastapi_apps == RegalPlugin.external_views == []
    assert LINKS == ()


def test_airflow_reports_no_error_about_the_plugin():
    from airflow import plugins_manager

    plugins_manager.ensure_plugins_loaded() if hasattr(plugins_manager, "ensure_plugins_loaded") else None
    found = plugins_manager.get_plugin_info()
    assert "regal" in {one["name"] for one in found}
