"""Print our own requirements at their lower bounds, one per line."""

from __future__ import annotations

import tomllib

from scripts.local import PROJECT


def main() -> None:
    """Read the bounds from pyproject.toml, their only source."""
    requirements = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in requirements:
        if not requirement.startswith("apache-airflow>="):  # the environment's own group pins it
            print(requirement.replace(">=", "=="))


if __name__ == "__main__":
    main()
