"""What PyPI shows has no relative links, and the checks of a distribution find missing and superfluous files."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from hatch_build import for_pypi
from scripts.distribution import faults_of_source, faults_of_wheel

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()
HOME = {"Homepage": "https://pypi.org/project/airflow-provider-regal/"}


def links(text):
    return re.findall(r"\]\(([^)]*)\)", text)


def test_without_a_known_repository_the_text_of_a_link_stays_and_its_place_is_said():
    shown = for_pypi(README, HOME, "1.2.3")
    assert all(target.startswith("https://") for target in links(shown))
    assert "see Connection |" in shown
    assert shown.count("](https://") == README.count("](https://") + 1
    assert "https://pypi.org/project/airflow-provider-regal/#files" in shown.splitlines()[-1]


def test_with_a_repository_links_lead_to_the_files_of_this_version():
    shown = for_pypi(README, HOME | {"Repository": "https://git.example/regal/"}, "1.2.3")
    assert all(target.startswith("https://") for target in links(shown))
    relative = [target for target in links(README) if "://" not in target]
    assert relative
    for target in relative:
        assert f"](https://git.example/regal/blob/v1.2.3/{target})" in shown
    assert "source distribution" not in shown


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)

    def make(description="# Title\n\n[a](https://example.com)", without="", plus=()):
        path = tmp_path / "regal-1-py3-none-any.whl"
        package = [p for p in Path("airflow_provider_regal").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        examples = [f"airflow_provider_regal/examples/{p.name}" for p in Path("dags").glob("*.py")]
        with zipfile.ZipFile(path, "w") as archive:
            for name in [*map(str, package), *examples, *plus]:
                if name != without:
                    archive.writestr(name, "")
            archive.writestr("regal-1.dist-info/METADATA", f"Name: regal\n\n{description}")
        return path

    return make


def test_a_whole_wheel_has_no_faults(wheel):
    assert list(faults_of_wheel(wheel())) == []


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        ({"description": "# Title\n\n[a](docs/index.md)"}, "relative link to docs/index.md"),
        ({"description": ""}, "no long description"),
        ({"without": "airflow_provider_regal/py.typed"}, "lacks airflow_provider_regal/py.typed"),
        ({"without": "airflow_provider_regal/examples/01_first_events.py"}, "lacks .*01_first_events.py"),
        ({"plus": ["tests/test_a.py"]}, "tests/test_a.py is not ours"),
        ({"plus": ["airflow_provider_regal/example_dags/a.py"]}, "Airflow loads DAGs"),
    ],
)
def test_a_fault_of_a_wheel_is_found(wheel, made, fault):
    assert any(re.search(fault, found) for found in faults_of_wheel(wheel(**made)))


def test_a_source_distribution_without_a_page_that_its_readme_links_to_is_a_fault(tmp_path):
    path = tmp_path / "regal-1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in (("README.md", "[a](docs/a.md#x) [b](docs/b.md)"), ("docs/a.md", "")):
            member = tarfile.TarInfo(f"regal-1/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    assert list(faults_of_source(path)) == ["regal-1.tar.gz: lacks docs/b.md, to which its README links"]
