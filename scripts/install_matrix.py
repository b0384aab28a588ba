"""Install the wheel beside each supported Airflow as it was released, and use it there; ``make matrix``.

Each Airflow gets a new environment with the packages of its release day: those are the versions its constraints name.
(With the newest packages, Airflow 3.0.6 and 3.2.2 do not start.) The wheel then has to fit in without changing any of
them. Everything is in ``.cache/matrix``; ``scripts/installed.py`` is what runs in each environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from scripts.local import PROJECT

HERE: Final = PROJECT / ".cache" / "matrix"
EXTRAS: Final = "mysql,parquet,postgres,s3"


@dataclass(frozen=True)
class Release:
    """A version of Airflow, what it was released with, and what it offers us."""

    airflow: str
    day: str
    """When it was released; packages uploaded later are ignored."""
    common_compat: str
    """What its constraints name: proof that the day is the right one."""
    form_fields: int = 5
    """Airflow 3.0 shows the fields of a connection type only with the FAB provider."""
    has_command: bool = True
    """Whether ``airflow regal`` exists: from 3.2."""


RELEASES: Final = (
    Release("2.11.2", "2026-03-14", "1.14.1", has_command=False),
    Release("3.0.6", "2025-08-29", "1.7.3", form_fields=0, has_command=False),
    Release("3.1.8", "2026-03-11", "1.14.0", has_command=False),
    Release("3.2.2", "2026-05-29", "1.15.0"),
    Release("3.3.2", "2026-09-17", "1.19.0"),
)


class StepError(Exception):
    """A step failed, with the end of what it wrote."""


def main(wanted: list[str]) -> int:
    """Try the wanted versions of Airflow, or all, and print a table."""
    unknown = set(wanted) - {release.airflow for release in RELEASES}
    if unknown:
        print(f"Unknown: {', '.join(sorted(unknown))}. Known: {', '.join(r.airflow for r in RELEASES)}")
        return 2
    HERE.mkdir(parents=True, exist_ok=True)
    wheel = build_wheel()
    lines, failed = [], []
    for release in RELEASES:
        if wanted and release.airflow not in wanted:
            continue
        started = time.monotonic()
        print(f"Airflow {release.airflow} as of {release.day} ...", flush=True)
        try:
            found = try_release(release, wheel)
        except StepError as error:
            failed.append(release.airflow)
            print(f"FAILED: {error}\n", flush=True)
            continue
        seconds = time.monotonic() - started
        lines.append(
            f"| {release.airflow} | {found['common_compat']} | {found['sqlalchemy']} | {found['modules']} "
            f"| {found['form_fields']} of 5 | {'yes' if found['has_command'] else 'no'} | {found['events']} "
            f"| {seconds:.0f} |"
        )
    print(
        "| Airflow | common-compat | SQLAlchemy | modules imported | form fields | airflow regal | events | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return 1 if failed else 0


def build_wheel() -> Path:
    """Build the wheel of this working copy."""
    dist = HERE / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    uv("build", "--wheel", "--python", sys.executable, "--out-dir", str(dist), str(PROJECT))
    (wheel,) = dist.glob("*.whl")
    return wheel


def try_release(release: Release, wheel: Path) -> dict[str, Any]:
    """Install one Airflow and the wheel, and use it; return what was found."""
    folder = HERE / release.airflow
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    python = folder / "venv" / "bin" / "python"
    released = ("--python", str(python), "--exclude-newer", release.day)
    uv("venv", "--python", sys.executable, str(folder / "venv"))
    uv("pip", "install", *released, f"apache-airflow=={release.airflow}")

    constraints = folder / "constraints.txt"
    constraints.write_text(uv("pip", "freeze", "--python", str(python)))
    if f"apache-airflow-providers-common-compat=={release.common_compat}\n" not in constraints.read_text():
        raise StepError(f"{constraints} does not have common-compat {release.common_compat}: another day's packages")
    uv("pip", "install", *released, "--constraint", str(constraints), str(wheel))
    uv("pip", "install", *released, "--constraint", str(constraints), "--dry-run", f"{wheel}[{EXTRAS}]")
    uv("pip", "check", "--python", str(python))

    home = folder / "home"
    home.mkdir()
    found: dict[str, Any] = json.loads(
        run(
            [str(python), "-I", str(PROJECT / "scripts" / "installed.py")], cwd=home, env=environment(home)
        ).splitlines()[-1]
    )
    expected = {
        "version": version("airflow-provider-regal"),
        "common_compat": release.common_compat,
        "form_fields": release.form_fields,
        "has_command": release.has_command,
    }
    differs = {name: found[name] for name, value in expected.items() if found[name] != value}
    if differs:
        raise StepError(f"found {differs}, expected { ({name: expected[name] for name in differs}) }")
    return found


def environment(home: Path) -> dict[str, str]:
    """The environment of an Airflow of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    return inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def uv(*words: str) -> str:
    """Run uv, its cache inside the project's folder."""
    own = PROJECT / ".tools" / "bin" / "uv"
    env = os.environ | {"UV_CACHE_DIR": str(PROJECT / ".cache" / "uv"), "UV_PYTHON_DOWNLOADS": "never"}
    return run([str(own) if own.exists() else "uv", *words], cwd=HERE, env=env)


def run(command: list[str], *, cwd: Path, env: dict[str, str]) -> str:
    """Run a command; return what it printed."""
    ran = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=900, check=False)
    if ran.returncode:
        raise StepError(f"{' '.join(command)}\n{(ran.stdout + ran.stderr)[-6000:]}")
    return ran.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
