"""Make the long description that PyPI shows from README.md, whose links lead nowhere from there.

With ``Repository`` in ``[project.urls]`` they lead to the files of this version's tag in the repository. Without it,
their text stays, and a last line says where the pages are: in the source distribution.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE: Final = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://|#)([^)\s]+)\)")
WHERE: Final = "\nThe pages named above are in the folder `docs` of the [source distribution]({homepage}#files).\n"


class LongDescription(MetadataHookInterface):
    """Hatch calls it for each build."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the description."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        written = for_pypi(text, metadata["urls"], metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": written}


def for_pypi(text: str, urls: dict[str, str], version: str) -> str:
    """Return a README without relative links."""
    if repository := urls.get("Repository"):
        return RELATIVE.sub(rf"[\1]({repository.rstrip('/')}/blob/v{version}/\2)", text)
    return RELATIVE.sub(r"\1", text) + WHERE.format(homepage=urls["Homepage"])
