"""Print our own requirements at their lower bounds, one a line."""

from __future__ import annotations

import tomllib

from scripts.local import PROJECT


def main() -> None:
    """Read the bounds from pyproject.toml, so that they stand in one place."""
    requirements = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in requirements:
        if not requirement.startswith("apache-airflow>="):  # the environment's own group pins it
            print(requirement.replace(">=", "=="))


if __name__ == "__main__":
    main()
