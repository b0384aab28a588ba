"""Take the pictures of docs/monitoring.md: the pages in a real Airflow, light and dark, and at phone width."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts import local
from scripts.page_history import PERSON, write_history
from scripts.processes import stop_on_signals

PICTURES = local.PROJECT / "docs" / "pictures"
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
WIDE, PHONE = (1280, 960), (390, 844)


def main() -> None:
    """Write a history into a ledger, start Airflow's API server, and take the pictures."""
    stop_on_signals()
    file = local.HOME / "airflow" / "regal" / "ledger.db"
    local.HOME.mkdir(parents=True, exist_ok=True)
    local.forget_ledger()
    here = local.Regal("http://127.0.0.1:9", 100)  # nothing is sent
    ledger = json.dumps({"conn_type": "sqlite", "host": str(file)})
    env = local.airflow_environment(
        here,
        AIRFLOW__REGAL__PEOPLE_PAGE="True",
        AIRFLOW__REGAL__LEDGER_CONN_ID="regal_ledger",  # keeps paths of this machine out of the pictures
        AIRFLOW_CONN_REGAL_LEDGER=ledger,
    )
    local.airflow(env, "db", "migrate", log="migrate.log")
    local.airflow(env, "dags", "reserialize", log="reserialize.log")
    numbers = write_history(file)
    with local.api_server(env) as answers:
        answers()
        take_all(local.airflow_url(env), numbers, Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)


def take_all(airflow: str, numbers: dict[str, int], folder: Path) -> None:
    """Take every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    failed, outage = (f"/regal/deliveries/{numbers[name]}" for name in ("failed", "outage"))
    fine, stopped = (f"/regal/deliveries/{numbers[name]}" for name in ("fine", "stopped"))
    with browser() as chromium:
        for name, path, size, scheme in (
            ("deliveries-light", "/regal/", WIDE, "light"),
            ("deliveries-dark", "/regal/", WIDE, "dark"),
            ("failed-light", failed, WIDE, "light"),
            ("outage-light", outage, (1280, 720), "light"),
            ("fine-light", fine, (1280, 720), "light"),
            ("health-light", "/regal/health", (1280, 720), "light"),
            ("deliveries-phone", "/regal/", PHONE, "light"),
            ("failed-phone", failed, PHONE, "light"),
        ):
            take(chromium, airflow + path, folder / f"pages-{name}.png", size, scheme)
        take(
            chromium,
            airflow + stopped,
            folder / "pages-tries-light.png",
            WIDE,
            "light",
            part="section:has(table.tries)",
        )
        take(chromium, f"{airflow}/regal/people", folder / "pages-people-light.png", WIDE, "light", who=PERSON)
        take(chromium, f"{airflow}/plugin/regal", folder / "pages-airflow.png", (1280, 760), "light", framed=True)


@contextmanager
def browser() -> Iterator[Any]:
    """Run the machine's Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        yield chromium
        chromium.close()


def take(
    chromium: Any,
    url: str,
    file: Path,
    size: tuple[int, int],
    scheme: str,
    *,
    framed: bool = False,
    who: str | None = None,
    part: str | None = None,
) -> None:
    """Take a picture of what is visible without scrolling.

    :param framed: the page is in a frame of Airflow's UI: wait until that is there.
    :param who: the person to look up on the page.
    :param part: selector of the part of the page to show.
    """
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = context.new_page()
    page.goto(url)
    if framed:
        page.frame_locator("iframe").get_by_role("heading", name="Deliveries", exact=True).wait_for()
        page.wait_for_timeout(1_000)
    if who is not None:
        page.locator("input[name=who]").fill(who)
        page.get_by_role("button", name="Look up").click()
        page.get_by_role("heading", name="Consent now").wait_for()
    (page if part is None else page.locator(part)).screenshot(path=str(file))
    context.close()


if __name__ == "__main__":
    main()
