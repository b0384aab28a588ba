"""Check a built wheel and source distribution: their content, and that what PyPI shows has no relative links."""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PACKAGE: Final = "airflow_provider_regal"
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


def main(folder: Path) -> int:
    """Print what is wrong."""
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    wrong = [*faults_of_wheel(wheel), *faults_of_source(source)]
    print("\n".join(wrong) or f"{wheel.name}, {source.name}: all of the package, and nothing else")
    return bool(wrong)


def faults_of_wheel(wheel: Path) -> Iterator[str]:
    """Compare the wheel with the working copy, and check its long description."""
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        description = archive.read(metadata).decode().partition("\n\n")[2]
    package = (path for path in Path(PACKAGE).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    ours = {*map(str, package), *(f"{PACKAGE}/examples/{path.name}" for path in Path("dags").glob("*.py"))}
    for name in sorted(ours - inside):
        yield f"{wheel.name}: lacks {name}"
    for name in sorted(inside - ours):
        yield f"{wheel.name}: {name} is not ours"
    if any("/example_dags/" in name for name in inside):
        yield f"{wheel.name}: Airflow loads DAGs of a folder example_dags by itself"
    for target in LINK.findall(description):
        if not target.startswith(("https://", "#")):
            yield f"{wheel.name}: PyPI would show a relative link to {target}"
    if not description.startswith("# "):
        yield f"{wheel.name}: has no long description"


def faults_of_source(source: Path) -> Iterator[str]:
    """Check that the source distribution has the files that its README links to."""
    with tarfile.open(source) as archive:
        top = source.name.removesuffix(".tar.gz")
        inside = {name.removeprefix(f"{top}/") for name in archive.getnames()}
        readme = archive.extractfile(f"{top}/README.md")
        text = readme.read().decode() if readme else ""
    for target in LINK.findall(text):
        if "://" not in target and target.partition("#")[0] not in inside:
            yield f"{source.name}: lacks {target}, to which its README links"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
