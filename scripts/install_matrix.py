"""Install the wheel beside each supported Airflow, as a user does, and use it there; ``make matrix``.

Each run is a new environment with one Airflow, one Python, and one of two sets of packages:

* *released*: the versions that the constraints of this Airflow name. They are found as the newest of its release day.
* *newest*: the newest that fit together today. Where Airflow itself does not run with them, that is the result.

Airflow is installed first, then the wheel by pip, with the same constraints: it must not change what Airflow brought.
``scripts/installed.py`` runs in each environment. The results are kept in ``docs/compatibility.json``, and the table of
``docs/compatibility.md`` is made from them. Everything else is in ``.cache/matrix``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from scripts.compatibility import NEWEST, RELEASED, read, save, table
from scripts.local import PROJECT

HERE: Final = PROJECT / ".cache" / "matrix"
EXTRAS: Final = ("mysql", "parquet", "postgres", "s3")
CONTROL: Final = """
from airflow import DAG
try:
    from airflow.sdk import task
except ImportError:
    from airflow.decorators import task
with DAG("control", schedule=None):
    @task
    def nothing(): ...
    nothing()
"""


@dataclass(frozen=True)
class Release:
    """A version of Airflow, its packages at release, and what it offers this package."""

    airflow: str
    day: str
    """When it was released; packages uploaded later are ignored."""
    common_compat: str
    """What its constraints name: proof that the day is the right one."""
    pythons: tuple[str, ...]
    """Every Python that both it and we support."""
    form_fields: int = 5
    """Airflow 3.0 shows the fields of a connection type only with the FAB provider."""
    command: bool = True
    """Whether ``airflow regal`` exists: from 3.2."""
    pages: bool = True
    """Whether Airflow's UI has our pages: from 3.1."""


RELEASES: Final = (
    Release("2.11.2", "2026-03-14", "1.14.1", ("3.11", "3.12"), command=False, pages=False),
    Release("3.0.6", "2025-08-29", "1.7.3", ("3.11", "3.12"), form_fields=0, command=False, pages=False),
    Release("3.1.8", "2026-03-11", "1.14.0", ("3.11", "3.12", "3.13"), command=False),
    Release("3.2.2", "2026-05-29", "1.15.0", ("3.11", "3.12", "3.13", "3.14")),
    Release("3.3.2", "2026-09-17", "1.19.0", ("3.11", "3.12", "3.13", "3.14")),
)


@dataclass(frozen=True)
class Run:
    """One environment."""

    release: Release
    python: str
    packages: str

    def __str__(self) -> str:
        return f"Airflow {self.release.airflow}, Python {self.python}, {self.packages} packages"


class StepError(Exception):
    """A step failed; with the end of its output."""


def main() -> int:
    """Run the requested combinations, one after the other, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", help="of Airflow; all by default")
    parser.add_argument("--python", action="append", help="only with this version, such as 3.12")
    parser.add_argument("--packages", choices=(RELEASED, NEWEST), help="only with these")
    parser.add_argument("--ends", action="store_true", help="the oldest and the newest Airflow only; nothing is kept")
    wanted = parser.parse_args()
    unknown = set(wanted.versions) - {release.airflow for release in RELEASES}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(one.airflow for one in RELEASES)}")

    HERE.mkdir(parents=True, exist_ok=True)
    wheel = build_wheel()
    failed = []
    for run in runs(wanted):
        started = time.monotonic()
        interpreter = find_python(run.python)
        if interpreter is None:
            print(f"{run}: skipped, there is no Python {run.python} here", flush=True)
            continue
        print(f"{run} ...", flush=True)
        try:
            result = attempt(run, wheel, interpreter)
        except StepError as error:
            failed.append(str(run))
            print(f"FAILED: {error}\n", flush=True)
            continue
        print(f"    {result}, {time.monotonic() - started:.0f} s", flush=True)
        if not wanted.ends:
            save(result)
    if not wanted.ends:
        print("\n".join(table(read())))
    for run in failed:
        print(f"Failed: {run}")
    return 1 if failed else 0


def runs(wanted: argparse.Namespace) -> Iterator[Run]:
    """List the runs: all, or those named on the command line."""
    if wanted.ends:
        oldest, newest = RELEASES[0], RELEASES[-1]
        found = [python for python in newest.pythons if find_python(python)]
        yield Run(oldest, oldest.pythons[0], RELEASED)
        yield Run(newest, found[-1], RELEASED)
        return
    for release in RELEASES:
        if wanted.versions and release.airflow not in wanted.versions:
            continue
        for python in release.pythons:
            for packages in (RELEASED, NEWEST):
                if packages == NEWEST and python != release.pythons[0]:
                    continue
                if (wanted.python and python not in wanted.python) or wanted.packages not in (None, packages):
                    continue
                yield Run(release, python, packages)


def build_wheel() -> Path:
    """Build the wheel of this working copy."""
    dist = HERE / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    uv("build", "--wheel", "--python", sys.executable, "--out-dir", str(dist), str(PROJECT))
    (wheel,) = dist.glob("*.whl")
    return wheel


def find_python(version_: str) -> str | None:
    """Return an interpreter of this machine."""
    try:
        return uv("python", "find", "--no-project", version_).strip()
    except StepError:
        return None


def attempt(run: Run, wheel: Path, interpreter: str) -> dict[str, Any]:
    """Install one Airflow and the wheel, and use it; return the results."""
    folder = HERE / f"{run.release.airflow}-{run.python}-{run.packages}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    result = {
        "airflow": run.release.airflow,
        "python": run.python,
        "packages": run.packages,
        "released": run.release.day,
        "package": version("airflow-provider-regal"),
        "works": True,
    }
    python = install_airflow(run, folder, interpreter)
    if run.packages == NEWEST and (reason := broken_by_itself(python, folder / "control")):
        return result | {"works": False, "reason": reason}
    result["unfit"] = install_wheel(run, folder, python, wheel)

    home = folder / "home"
    (home / "dags").mkdir(parents=True)
    script = str(PROJECT / "scripts" / "installed.py")
    said = execute([str(python), "-I", script], cwd=home, env=environment(home))
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    expected: dict[str, Any] = {
        "version": version("airflow-provider-regal"),
        "form_fields": run.release.form_fields,
        "command": run.release.command,
        "pages": run.release.pages,
    }
    if run.packages == RELEASED:
        expected["common_compat"] = run.release.common_compat
    differs = {name: found[name] for name, value in expected.items() if found[name] != value}
    if differs:
        raise StepError(f"found {differs}, expected { ({name: expected[name] for name in differs}) }")
    return result | {name: value for name, value in found.items() if name != "version"}


def install_airflow(run: Run, folder: Path, interpreter: str) -> Path:
    """Create an environment with Airflow, and with a database provider for a source of rows."""
    python = folder / "venv" / "bin" / "python"
    uv("venv", "--python", interpreter, str(folder / "venv"))
    packages = (f"apache-airflow=={run.release.airflow}", "apache-airflow-providers-sqlite", "pip")
    uv("pip", "install", *index(run, python), *packages)
    return python


def install_wheel(run: Run, folder: Path, python: Path, wheel: Path) -> list[str]:
    """Install the wheel with pip, with constraints: what Airflow installed, and the rest as of the same day.

    :returns: the extras that don't fit, because their packages contradict those of Airflow; none if they are released.
    """
    brought = uv("pip", "freeze", "--python", str(python))
    (folder / "brought.txt").write_text(brought)
    unfit = [] if run.packages == RELEASED else [one for one in EXTRAS if not fits(run, folder, python, wheel, [one])]
    resolved = resolve(run, folder, python, wheel, [one for one in EXTRAS if one not in unfit])
    constraints = folder / "constraints.txt"
    pins = [line for line in resolved.splitlines() if "==" in line]
    constraints.write_text("\n".join({*pins, *brought.splitlines()}) + "\n")
    execute(
        [str(python), "-I", "-m", "pip", "install", "--quiet", "--constraint", str(constraints), str(wheel)],
        cwd=folder,
        env=environment(folder),
    )
    after = set(uv("pip", "freeze", "--python", str(python)).splitlines())
    if changed := set(brought.splitlines()) - after:
        raise StepError(f"the wheel changed what Airflow brought: {sorted(changed)}")
    uv("pip", "check", "--python", str(python))
    return unfit


def fits(run: Run, folder: Path, python: Path, wheel: Path, extras: Sequence[str]) -> bool:
    """Return whether the wheel with these extras can be installed beside what Airflow installed."""
    try:
        resolve(run, folder, python, wheel, extras)
    except StepError as error:
        print(f"    extra {', '.join(extras)}: {str(error)[-600:]}", flush=True)
        return False
    return True


def resolve(run: Run, folder: Path, python: Path, wheel: Path, extras: Sequence[str]) -> str:
    """Find the packages that the wheel needs beside what Airflow installed."""
    (folder / "wanted.txt").write_text(f"airflow-provider-regal[{','.join(extras)}] @ {wheel.as_uri()}\n")
    return uv(
        *("pip", "compile", "--quiet", "--no-header", "--no-annotate", *index(run, python)),
        *("--constraint", str(folder / "brought.txt"), str(folder / "wanted.txt")),
    )


def index(run: Run, python: Path) -> tuple[str, ...]:
    """Return the options that select the Python version and the available packages."""
    day = ("--exclude-newer", run.release.day) if run.packages == RELEASED else ()
    return ("--python", str(python), *day)


def broken_by_itself(python: Path, home: Path) -> str | None:
    """Run one of Airflow's own DAGs before this package is installed; return why it failed."""
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "control.py").write_text(CONTROL)
    for words in (("db", "migrate"), ("dags", "test", "control")):
        try:
            execute([str(python), "-I", "-m", "airflow", *words], cwd=home, env=environment(home))
        except StepError as error:
            print(f"    Airflow by itself: {str(error)[-3000:]}", flush=True)
            return f"airflow {words[0]} {words[1]} fails without our package"
    return None


def environment(home: Path) -> dict[str, str]:
    """The environment variables of a separate Airflow."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    return inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def uv(*words: str) -> str:
    """Run uv."""
    own = PROJECT / ".tools" / "bin" / "uv"
    env = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
    return execute([str(own) if own.exists() else "uv", *words], cwd=HERE, env=env)


def execute(command: list[str], *, cwd: Path, env: dict[str, str]) -> str:
    """Run a command; return its output."""
    try:
        ran = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=1200, check=False)
    except subprocess.TimeoutExpired as error:
        raise StepError(str(error)) from None
    if ran.returncode:
        raise StepError(f"{' '.join(command)}\n{(ran.stdout + ran.stderr)[-9000:]}")
    return ran.stdout


if __name__ == "__main__":
    sys.exit(main())
