"""A simulated person on call, who starts at a DAG's page in Airflow, clicks, and reads. Clicks are counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.incidents.data import Incident
from scripts.incidents.stage import NEW_KEY, Stage

_PATIENCE_MS = 60_000


@dataclass
class OnCall:
    """One person with a browser.

    :param page: Playwright's page.
    :param clicks: number of clicks.
    :param pictures: a folder for pictures; None for none.
    :param seen: the text of the delivery's page.
    :param delivery: its id.
    :param lacking: user ids of unknown rows that Regal did not have.
    """

    stage: Stage
    page: Any
    pictures: Path | None = None
    clicks: int = 0
    seen: dict[str, str] = field(default_factory=dict)
    delivery: int = 0
    lacking: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)

    def find_the_cause(self, incident: Incident) -> str:
        """Go from the red square to the page of the delivery; return the text at its top."""
        self.page.goto(self.stage.page_of(incident))
        square = self.page.locator(f"a[id^='grid-'][id$='-{incident.task_id}']").first
        square.wait_for(timeout=_PATIENCE_MS)
        if incident.name == "revoked-key" and "square" not in self._taken:
            self.page.get_by_text("Recent Failed Task Logs").wait_for(timeout=_PATIENCE_MS)
            self._picture("square")
        self._click(square)
        self._click(self.page.get_by_role("link", name="Regal", exact=True))
        frame = self.page.frame_locator("iframe")
        frame.get_by_role("heading", name="What happened").wait_for(timeout=_PATIENCE_MS)
        self._picture(incident.name)
        facts = frame.locator("p.facts").first.inner_text()
        self.delivery = int(facts.split()[1])
        self.seen = {
            "state": frame.locator(".heading").inner_text(),
            "happened": frame.locator("p.happened").first.inner_text(),
            "reasons": " ".join(frame.locator("table.reasons tbody").all_inner_texts()),
            "steps": frame.locator("ol.steps").inner_text(),
            "normal": frame.locator("section", has_text="Normal here?").last.locator("p.happened").inner_text(),
            "counts": frame.locator("dl.counts").inner_text().replace("\n", " "),
        }
        return self.seen["happened"]

    @property
    def words(self) -> int:
        """Return how many words one has to read to know the cause: state, sentence, reasons."""
        return sum(len(self.seen[part].split()) for part in ("state", "happened", "reasons"))

    def mend(self, incident: Incident) -> None:
        """Do what the runbook says, and wait until the run is green."""
        if incident.name == "revoked-key":
            self.enter_key(NEW_KEY)
        elif incident.name == "outage":
            self.stage.be_back()
        elif incident.name in ("text-column", "bad-phones"):
            self.repair_upstream()
        self.clear(incident)
        if incident.name == "killed-worker":
            self.find_the_cause(incident)
            self.settle(self.delivery, "Payment Due", f"{datetime.now(UTC).date()}")

    def clear(self, incident: Incident) -> None:
        """Clear the failed task, and wait until its run is green."""
        self.find_the_cause(incident)
        self._click(self.page.get_by_role("button", name="clear").first)
        self._click(self.page.get_by_role("dialog").get_by_role("button", name="Confirm"))
        self.page.get_by_role("dialog").wait_for(state="hidden", timeout=_PATIENCE_MS)
        (run,) = self._runs(incident.dag_id)
        self.stage.wait_for_run(incident.dag_id, run, "success")

    def enter_key(self, key: str) -> None:
        """Enter another API key under Admin > Connections."""
        self.page.goto(f"{self.stage.airflow}/connections")
        self._click(self.page.get_by_role("button", name="Edit Connection").first)
        form = self.page.get_by_role("dialog")
        form.locator('input[name="password"]').fill(key)
        self._picture("connection")
        self._click(form.get_by_role("button", name="Save"))
        form.wait_for(state="hidden", timeout=_PATIENCE_MS)

    def repair_upstream(self) -> None:
        """Trigger the upstream team's DAG, which corrects its rows, and wait for its end."""
        before = self._runs("upstream_repair")
        self.page.goto(f"{self.stage.airflow}/dags/upstream_repair")
        self._click(self.page.get_by_role("button", name="Trigger").first)
        self._click(self.page.get_by_role("dialog").get_by_role("button", name="Trigger"))
        self._wait_for_a_run("upstream_repair", before)

    def settle(self, delivery: int, event: str, day: str) -> None:
        """Look up each unknown row on Regal's own pages; mark those that it has, and redeliver the others."""
        there = {one: self._regal_has(one, event, day) for one in self.reveal(delivery)}
        self.lacking = [one for one, has in there.items() if not has]
        if len(self.lacking) < len(there):
            self.mark_found(delivery, [one for one, has in there.items() if has])
        if self.lacking:
            self.redeliver(delivery)

    def reveal(self, delivery: int) -> list[str]:
        """Reveal the people of a delivery's rows; return their user ids."""
        self.page.goto(f"{self.stage.airflow}/regal/deliveries/{delivery}")
        self._click(self.page.get_by_role("button", name="Show personal data"))
        self.page.get_by_text("Personal data is shown").wait_for(timeout=_PATIENCE_MS)
        return [str(one) for one in self.page.locator("td[data-label='user id']").all_inner_texts()]

    def _regal_has(self, user_id: str, event: str, day: str) -> bool:
        self.page.goto(f"{self.stage.here.url}/?search={user_id}")
        self.page.locator("a.name").first.click()
        said = self.page.locator("body").text_content()
        return event in said and day in said

    def mark_found(self, delivery: int, user_ids: list[str]) -> None:
        """Mark these rows of a delivery as found at Regal."""
        self.reveal(delivery)
        for user_id in user_ids:
            self._click(self.page.locator("tr", has_text=user_id).get_by_role("checkbox"))
        button = self.page.get_by_role("button", name="Regal has the ticked rows")
        button.scroll_into_view_if_needed()
        self._picture("ticked")
        self._click(button)
        self.page.get_by_text("marked as found at Regal now").wait_for(timeout=_PATIENCE_MS)

    def redeliver(self, delivery: int) -> None:
        """Redeliver the other unknown rows of a delivery; wait for the end."""
        before = self._runs("regal_redeliver")
        self.page.goto(f"{self.stage.airflow}/regal/deliveries/{delivery}")
        self._click(self.page.get_by_role("button", name="Start regal_redeliver"))
        self.page.get_by_text("was started").wait_for(timeout=_PATIENCE_MS)
        self._wait_for_a_run("regal_redeliver", before)

    def _runs(self, dag_id: str) -> set[str]:
        return {str(run["dag_run_id"]) for run in self.stage.api(f"dags/{dag_id}/dagRuns")["dag_runs"]}

    def _wait_for_a_run(self, dag_id: str, before: set[str]) -> None:
        while not (new := self._runs(dag_id) - before):
            self.page.wait_for_timeout(200)
        self.stage.wait_for_run(dag_id, new.pop(), "success")

    def _click(self, what: Any) -> None:
        what.click(timeout=_PATIENCE_MS)
        self.clicks += 1

    def _picture(self, name: str) -> None:
        if self.pictures is not None and name not in self._taken:
            self._taken.add(name)
            self.page.wait_for_timeout(1_000)
            self.page.screenshot(path=str(self.pictures / f"incident-{name}.png"))
