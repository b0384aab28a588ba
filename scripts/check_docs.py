"""Check the claims of the documents: links, code, and that every option is described on a page."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from scripts import compatibility
from scripts.install_matrix import RELEASES
from scripts.local import PROJECT

LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]*)(?:#([^)]*))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
CODE = re.compile(r"^```(\S*).*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
DOCS = PROJECT / "docs"


def documents() -> list[Path]:
    """All documents a user may read."""
    return sorted([*PROJECT.glob("*.md"), *DOCS.rglob("*.md")])


def broken_links() -> Iterator[str]:
    """Links to files that don't exist, and pages that no other page links to."""
    linked = set()
    for document in documents():
        for target, anchor in LINK.findall(document.read_text()):
            if "://" in target:
                continue
            path = (document.parent / target).resolve() if target else document
            if target:
                linked.add(path)
            if not path.exists():
                yield f"{document.relative_to(PROJECT)}: {target} does not exist"
            elif anchor and anchor not in anchors_of(path):
                yield f"{document.relative_to(PROJECT)}: {target} has no heading #{anchor}"
    for page in DOCS.rglob("*.md"):
        if page.resolve() not in linked:
            yield f"{page.relative_to(PROJECT)}: no page links to it"


@cache
def anchors_of(document: Path) -> frozenset[str]:
    """Return the valid link targets in a document: its headings, in GitHub's form."""
    text = CODE.sub("", document.read_text())
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text))
    return frozenset(headings)


def code_that_does_not_compile() -> Iterator[str]:
    """Python blocks with a syntax error."""
    for document in documents():
        for language, code in CODE.findall(document.read_text()):
            if language == "python":
                try:
                    ast.parse(code)
                except SyntaxError as error:
                    yield f"{document.relative_to(PROJECT)}: {error}"


def late_code_in_the_readme() -> Iterator[str]:
    """A README whose first code comes after line 35."""
    lines = (PROJECT / "README.md").read_text().splitlines()
    first = next((number for number, line in enumerate(lines, 1) if line.startswith("```python")), len(lines))
    if first >= 35:
        yield f"README.md: the first code stands on line {first}"


def options_without_a_word() -> Iterator[str]:
    """Options of operators, hook, connection, configuration and command line that no page names."""
    from airflow_provider_regal.cli.commands import COMMANDS, REDELIVER, SANDBOX, Command, Group
    from airflow_provider_regal.connection_form import CONN_FIELDS
    from airflow_provider_regal.get_provider_info import get_provider_info
    from airflow_provider_regal.hooks.regal import RegalHook
    from airflow_provider_regal.notifications.regal import RegalNotifier
    from airflow_provider_regal.operators._event import RegalEventOperator
    from airflow_provider_regal.operators.bulk import RegalBulkOperator
    from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
    from airflow_provider_regal.operators.page import RegalPageOperator
    from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
    from airflow_provider_regal.operators.track import RegalTrackOperator
    from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
    from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

    def flags(*commands: Command | Group) -> set[str]:
        return {
            flag
            for command in commands
            for flag in (
                flags(*command.commands)
                if isinstance(command, Group)
                else (flag for argument in command.arguments for flag in argument.flags if flag.startswith("-"))
            )
        }

    one, many = (RegalEventOperator, RegalTrackOperator, RegalPageOperator), (RegalBulkOperator, SqlToRegalOperator)
    met = {
        "event-operators.md": {name for operator in one for name in parameters(operator)},
        "sql-to-regal.md": {name for operator in many for name in parameters(operator)},
        "file-to-regal.md": parameters(FileToRegalOperator),
        "opt-in-sync.md": parameters(RegalOptInSyncOperator),
        "hook.md": parameters(RegalHook),
        "alerts.md": parameters(RegalNotifier),
        "connection.md": {*CONN_FIELDS, *get_provider_info()["config"]["regal"]["options"]},
        "redelivery.md": flags(REDELIVER) | parameters(RegalRedeliverOperator),
        "command-line.md": flags(*(command for command in COMMANDS if command is not SANDBOX)),
        "sandbox.md": flags(SANDBOX),
    }
    for page, names in met.items():
        if not (DOCS / page).exists():
            yield f"docs/{page}: does not exist"
            continue
        text = (DOCS / page).read_text()
        for name in sorted(names):
            if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text):
                yield f"docs/{page}: does not mention {name}"


def parameters(of: type) -> set[str]:
    """The keyword parameters of a class's own signature."""
    wanted = inspect.signature(of.__init__).parameters.values()
    return {p.name for p in wanted if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)} - {"self"}


def dependencies_without_a_reason() -> Iterator[str]:
    """Runtime dependencies whose line in docs/dependencies.md is missing or names another bound."""
    text = (DOCS / "dependencies.md").read_text()
    for requirement in tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]:
        name, _, bound = requirement.partition(">=")
        if f"| {name} | {bound} |" not in text:
            yield f"docs/dependencies.md: no line for {requirement}"


def make_targets_that_are_not_there() -> Iterator[str]:
    """Make targets that a document names and the Makefile lacks; more targets than a page can show."""
    makefile = (PROJECT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    shown = re.findall(r"^[a-z0-9-]+:.*##", makefile, re.MULTILINE)
    if len(shown) > 15:
        yield f"Makefile: {len(shown)} targets in its help"
    for document in (*documents(), *sorted((PROJECT / ".github").rglob("*.*"))):
        for target in re.findall(r"(?:`|^|run: )make ([a-z0-9-]+)", document.read_text(), re.MULTILINE):
            if target not in targets:
                yield f"{document.relative_to(PROJECT)}: there is no 'make {target}'"


def modules_that_are_not_there() -> Iterator[str]:
    """Modules and folders that CONTRIBUTING.md names and the package lacks."""
    text = CODE.sub("", (PROJECT / "CONTRIBUTING.md").read_text())
    package = PROJECT / "airflow_provider_regal"
    known = {path.name for path in package.rglob("*.py")}
    for name in sorted(set(re.findall(r"`([\w/.]+(?:\.py|/))`", text))):
        if not ((package / name).exists() or (PROJECT / name).exists() or name in known):
            yield f"CONTRIBUTING.md: there is no {name}"


def compatibility_that_did_not_run() -> Iterator[str]:
    """A page, classifiers or a workflow that differ from the results of ``make matrix``."""
    yield from compatibility.faults(
        compatibility.read(),
        page=compatibility.PAGE.read_text(),
        classifiers=tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["classifiers"],
    )
    listed = re.findall(r'"(\d+\.\d+\.\d+)"', (PROJECT / ".github" / "workflows" / "ci.yml").read_text())
    if listed != [release.airflow for release in RELEASES]:
        yield f".github/workflows/ci.yml: its matrix is {listed}, not the versions of scripts/install_matrix.py"


def main() -> None:
    """Run every check; print everything that is wrong."""
    checks = (
        broken_links,
        code_that_does_not_compile,
        late_code_in_the_readme,
        options_without_a_word,
        dependencies_without_a_reason,
        make_targets_that_are_not_there,
        modules_that_are_not_there,
        compatibility_that_did_not_run,
    )
    wrong = [line for check in checks for line in check()]
    print("\n".join(wrong) or f"{len(documents())} documents: nothing wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
