"""A release is refused while its tag, changelog or address is not ready."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from airflow_provider_regal import __version__

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def check(tmp_path):
    """Run it in a copy that is ready, once something about it was changed."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "airflow_provider_regal").mkdir()
    shutil.copy(PROJECT / "scripts" / "check_release.sh", tmp_path / "scripts")
    shutil.copy(PROJECT / "airflow_provider_regal" / "__init__.py", tmp_path / "airflow_provider_regal")
    pyproject = (PROJECT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(pyproject + '\n[project.urls]\nRepository = "https://git.example/regal"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {__version__} (2026-12-01)\n")

    def run(tag=f"v{__version__}"):
        return subprocess.run(
            ["bash", "scripts/check_release.sh", tag], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def test_what_is_ready_passes(check):
    ran = check()
    assert (ran.returncode, ran.stdout) == (0, f"{__version__} is ready to be released\n")


def test_another_tag_is_refused(check):
    ran = check("v9.9.9")
    assert ran.returncode == 1
    assert "v9.9.9" in ran.stderr


def test_an_unreleased_changelog_is_refused(check, tmp_path):
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {__version__} (unreleased)\n")
    ran = check()
    assert ran.returncode == 1
    assert "CHANGELOG.md" in ran.stderr


def test_an_unknown_repository_is_refused(check, tmp_path):
    pyproject = (tmp_path / "pyproject.toml").read_text().replace("Repository =", "# Repository =")
    (tmp_path / "pyproject.toml").write_text(pyproject)
    ran = check()
    assert ran.returncode == 1
    assert "Repository" in ran.stderr
