"""The routes of the pages: who may request them, what they show, and what changes something.

Changes are POST requests with our token. So are requests for personal data, which are also in Airflow's audit log.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from airflow_provider_regal import _compat as airflow
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.ledger.admin import monitoring, words
from airflow_provider_regal.ledger.admin.found import mark_found
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import Record
from airflow_provider_regal.ledger.text import to_ledger_time
from airflow_provider_regal.plugin import deliveries, delivery, health, people
from airflow_provider_regal.plugin.access import REDELIVER_DAG, Forbidden, Viewer
from airflow_provider_regal.plugin.delivery import RowFilter
from airflow_provider_regal.plugin.ledgers import Ledgers, NoLedger
from airflow_provider_regal.plugin.rendering import HEADERS, page

_LONGEST_FORM: Final = 16_384
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_MISSING: Final = 404
_UNAVAILABLE: Final = 503


def create_app() -> FastAPI:
    """Create the application that Airflow mounts at ``/regal``."""
    app = FastAPI(title="Regal", docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    Routes(Ledgers()).add_to(app)
    return app


async def form_of(request: Request) -> dict[str, str]:
    """Read a form; FastAPI's own reader needs a package that Airflow may not install."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            raise HTTPException(413)
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _add_errors(app: FastAPI) -> None:
    def http_error(request: Request, error: Any) -> Response:
        if error.status_code == _UNAUTHORIZED:
            back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            values = {"sign_in": airflow.sign_in_url(back if request.method == "GET" else "/")}
            return page(request, "sign_in", status=_UNAUTHORIZED, **values)
        return page(request, "error", status=error.status_code, title=error.detail, told=None)

    def forbidden(request: Request, error: Any) -> Response:
        told = (
            "Your user may not do or see that. Ask whoever manages Airflow's roles; or, if this was a form, load its "
        )
        return page(request, "error", status=_FORBIDDEN, title="Not allowed", told=f"{told}page again.")

    def no_ledger(request: Request, error: Any) -> Response:
        return page(request, "error", status=_UNAVAILABLE, title="No ledger to look at", told=str(error))

    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Forbidden, forbidden)
    app.add_exception_handler(NoLedger, no_ledger)
    app.add_exception_handler(RegalError, no_ledger)

    from starlette.exceptions import HTTPException as StarletteHTTPException

    app.add_exception_handler(StarletteHTTPException, http_error)  # for paths that don't exist


class Routes:
    """The pages of one ledger."""

    def __init__(self, ledgers: Ledgers) -> None:
        self._ledgers = ledgers
        user = airflow.signed_in_user()

        def viewer(user: Any = Depends(user)) -> Viewer:  # noqa: B008 - so FastAPI wants it
            return Viewer(user)

        self._viewer = Depends(viewer)
        self._form = Depends(form_of)

    def add_to(self, app: FastAPI) -> None:
        """Add all routes."""
        viewer, form, ledgers = self._viewer, self._form, self._ledgers

        @app.get("/")
        def show_deliveries(request: Request, viewer: Any = viewer) -> HTMLResponse:
            with ledgers.open() as database:
                readable = viewer.readable(lambda: monitoring.dags_on_record(database))
                values = deliveries.view(database, readable, request.query_params)
            return page(request, "deliveries", viewer=viewer, **values)

        @app.get("/task")
        def show_task(request: Request, viewer: Any = viewer) -> Response:
            asked = request.query_params
            viewer.check_dag(asked.get("dag_id", ""))
            with ledgers.open() as database:
                now, rows = database.now(), delivery.of_task(database, asked)
            if len(rows) == 1:
                return _to(request, f"/deliveries/{rows[0].record.id}")
            return page(request, "task", viewer=viewer, rows=rows, asked=asked, now=now)

        @app.get("/deliveries/{number}")
        def show_delivery(request: Request, number: int, viewer: Any = viewer) -> HTMLResponse:
            with ledgers.open() as database:
                record = _readable_record(database, number, viewer)
                return _delivery(request, database, record, viewer, RowFilter.of(request.query_params, record))

        @app.post("/deliveries/{number}")
        def reveal(request: Request, number: int, viewer: Any = viewer, form: Any = form) -> HTMLResponse:
            with ledgers.open() as database:
                record = _readable_record(database, number, viewer)
                filters = RowFilter.of(form, record)
                _reveal(viewer, form, record, "regal.reveal", {"after_row": filters.after})
                return _delivery(request, database, record, viewer, filters, revealed=True)

        @app.get("/deliveries/{number}/outcomes.csv")
        def export_masked(request: Request, number: int, viewer: Any = viewer) -> Response:
            with ledgers.open() as database:
                record = _readable_record(database, number, viewer)
            return self._csv(record, RowFilter.of(request.query_params, record), reveal=False)

        @app.post("/deliveries/{number}/outcomes.csv")
        def export_revealed(number: int, viewer: Any = viewer, form: Any = form) -> Response:
            with ledgers.open() as database:
                record = _readable_record(database, number, viewer)
            _reveal(viewer, form, record, "regal.export", {})
            return self._csv(record, RowFilter.of(form, record), reveal=True)

        @app.post("/deliveries/{number}/redeliver")
        def redeliver(request: Request, number: int, viewer: Any = viewer, form: Any = form) -> Response:
            with ledgers.open() as database:
                record = _readable_record(database, number, viewer)
                viewer.check_token(form.get("token", ""))
                if not viewer.redelivers:
                    raise Forbidden
                run_id, rows = _start_redelivery(database, record, form, viewer)
            return _to(request, f"/deliveries/{record.id}?{urlencode({'started': run_id, 'rows': rows})}")

        @app.post("/deliveries/{number}/settle")
        def settle(request: Request, number: int, viewer: Any = viewer, form: Any = form) -> Response:
            with ledgers.open() as database:
                record = _readable_record(database, number, viewer)
                viewer.check_token(form.get("token", ""))
                if not viewer.settles(record):
                    raise Forbidden
                marked = _mark_found(database, record, form, viewer)
            return _to(request, f"/deliveries/{record.id}?{urlencode({'found': marked})}")

        @app.get("/health")
        def show_health(request: Request, viewer: Any = viewer) -> HTMLResponse:
            viewer.check_dag(None)
            return page(request, "health", viewer=viewer, **health.view(self._summary(viewer)))

        @app.post("/health")
        def ask_regal(request: Request, viewer: Any = viewer, form: Any = form) -> HTMLResponse:
            viewer.check_dag(None)
            viewer.check_token(form.get("token", ""))
            return page(
                request, "health", viewer=viewer, **health.view(self._summary(viewer), form.get("conn_id", "").strip())
            )

        self._add_people(app)

    def _add_people(self, app: FastAPI) -> None:
        """Add the routes about one person: no URL names the person, and Airflow's audit log records each look-up."""
        viewer, form, ledgers = self._viewer, self._form, self._ledgers

        @app.get("/people")
        def ask_who(request: Request, viewer: Any = viewer) -> HTMLResponse:
            viewer.check_people()
            return page(request, "people", viewer=viewer, given=[])

        @app.post("/people")
        def show_person(request: Request, viewer: Any = viewer, form: Any = form) -> HTMLResponse:
            who = _who(viewer, form, "regal.person")
            if not who:
                return page(request, "people", viewer=viewer, given=[])
            with ledgers.open() as database:
                values = people.view(database, who, searches_rows="rows" in form)
            return page(request, "people", viewer=viewer, erasures=None, **values)

        @app.post("/people/erasure")
        def preview_erasure(request: Request, viewer: Any = viewer, form: Any = form) -> HTMLResponse:
            who = _who(viewer, form, "regal.erasure_preview")
            with ledgers.open() as database:
                values = {**people.view(database, who), **people.erasure(database, who)}
            return page(request, "people", viewer=viewer, **values)

        @app.post("/people/proof.json")
        def export_proof(viewer: Any = viewer, form: Any = form) -> Response:
            who = _who(viewer, form, "regal.proof")
            with ledgers.open() as database:
                told = people.proof(database, who)
            headers = {**HEADERS, "Content-Disposition": 'attachment; filename="consent.json"'}
            return Response(told, media_type="application/json", headers=headers)

    def _summary(self, viewer: Viewer) -> deliveries.Summary | None:
        """Sum up the deliveries; None without a ledger, or for a user who may read no DAG."""
        try:
            with self._ledgers.open() as database:
                return deliveries.summary(database, viewer.readable(lambda: monitoring.dags_on_record(database)))
        except (Forbidden, NoLedger, RegalError):  # the page says what is wrong with the ledger
            return None

    def _csv(self, record: Record, filters: RowFilter, *, reveal: bool) -> Response:
        def lines() -> Any:
            with self._ledgers.open() as database:
                yield from delivery.csv_lines(database, record, filters, reveal=reveal)

        name = f"regal-delivery-{record.id}.csv"
        headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(lines(), media_type="text/csv; charset=utf-8", headers=headers)


def _to(request: Request, path: str) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}{path}", status_code=303, headers=HEADERS)


def _readable_record(database: Database, number: int, viewer: Viewer) -> Record:
    """Find a delivery that the user may see.

    :raises HTTPException: it does not exist.
    :raises Forbidden: the user may not see it.
    """
    record = monitoring.one(database, number) if 0 < number < 2**62 else None
    if record is None:
        raise HTTPException(_MISSING, f"There is no delivery {number}")
    viewer.check_dag(record.dag_id)
    return record


def _delivery(
    request: Request, database: Database, record: Record, viewer: Viewer, filters: RowFilter, *, revealed: bool = False
) -> HTMLResponse:
    values = delivery.view(
        database,
        record,
        filters,
        reveals=viewer.reveals(record),
        revealed=revealed,
        redelivers=viewer.redelivers,
        settles=viewer.settles(record),
    )
    started = request.query_params.get("started")
    paused = airflow.is_paused(REDELIVER_DAG)
    return page(
        request,
        "delivery",
        viewer=viewer,
        started=started,
        chosen=_count(request.query_params.get("rows", "")),
        found=_count(request.query_params.get("found", "")),
        ticks_all=request.query_params.get("tick") == "all",
        started_url=f"/dags/{REDELIVER_DAG}/runs/{urlencode({'': started})[1:]}" if started else None,
        redeliver_dag=REDELIVER_DAG,
        is_paused=paused,
        **values,
    )


def _reveal(viewer: Viewer, form: dict[str, str], record: Record, event: str, extra: dict[str, Any]) -> None:
    """Check that the user may see personal data, and record the access in the audit log.

    :raises Forbidden: the user may not.
    """
    viewer.check_token(form.get("token", ""))
    if not viewer.reveals(record):
        raise Forbidden
    airflow.write_audit_log(viewer.user, event, {"delivery": record.id, **extra}, **_where(record))


def _where(record: Record) -> dict[str, Any]:
    names = ("dag_id", "run_id", "task_id", "map_index")
    return {name: getattr(record, name) for name in names}


def _who(viewer: Viewer, form: dict[str, str], event: str) -> list[str]:
    """Check that the user may look up a person, and record the look-up, without the person, in the audit log.

    :raises Forbidden: the user may not.
    """
    viewer.check_people()
    viewer.check_token(form.get("token", ""))
    who = people.given(form.get("who", ""))
    airflow.write_audit_log(viewer.user, event, {"identifiers": len(who)})
    return who


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 12 else None


def _mark_found(database: Database, record: Record, form: dict[str, str], viewer: Viewer) -> int:
    """Mark unknown rows as found at Regal, and record that in the audit log; return how many.

    :raises HTTPException: no row was chosen.
    """
    ticked = delivery.ticked_rows(form)
    if form.get("found") != "all" and not ticked:
        raise HTTPException(400, "No row is ticked: go back, and tick those that Regal has")
    rows = None if form.get("found") == "all" else ticked
    now = to_ledger_time(database.now())
    marked = database.write(partial(mark_found, delivery=record.id, positions=rows, found_at=now))
    airflow.write_audit_log(viewer.user, "regal.settle", {"delivery": record.id, "rows": len(marked)}, **_where(record))
    return len(marked)


def _start_redelivery(database: Database, record: Record, form: dict[str, str], viewer: Viewer) -> tuple[str, int]:
    """Trigger the DAG that redelivers; return the id of its run, and how many rows match.

    :raises HTTPException: the DAG's params do not allow it.
    """
    status = form.get("status", "rejected")
    conf: dict[str, Any] = {
        "delivery": record.id,
        "status": status if status in ("rejected", "unknown", "both") else "rejected",
        "reason": form.get("reason", "").strip() or None,
        "regal_conn_id": form.get("regal_conn_id", "").strip() or words.conn_id_of(record),
    }
    ticked = delivery.ticked_rows(form)
    if form.get("only") == "ticked":
        if not ticked:
            raise HTTPException(400, "No row is ticked: go back, and tick those to redeliver")
        conf["status"] = "both"  # each was chosen, with its status beside it
    if ticked:
        if "positions" not in airflow.params_of_dag(REDELIVER_DAG):  # otherwise it would send all rows
            raise HTTPException(400, f"Your copy of {REDELIVER_DAG} can't send single rows: copy the new one")
        conf["positions"] = ", ".join(map(str, ticked))
    statuses = ("rejected", "unknown") if conf["status"] == "both" else (conf["status"],)
    rows = monitoring.count_letters(database, record.id, statuses=statuses, reason=conf["reason"], positions=ticked)
    try:
        run_id = airflow.trigger_dag(REDELIVER_DAG, conf, viewer.user)
    except ValueError as error:
        raise HTTPException(400, f"Airflow does not take that: {error}") from error
    airflow.write_audit_log(
        viewer.user, "regal.redeliver", {"delivery": record.id, "status": conf["status"]}, dag_id=record.dag_id
    )
    return run_id, rows
