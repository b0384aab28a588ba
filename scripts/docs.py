"""``make docs``: build the docs site in .cache, check its links and anchors, and serve it until Ctrl-C.

``--check`` only builds and checks. Neither the build nor a page of the site needs a network.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scripts.local import PROJECT
from scripts.processes import free_port

SITE = PROJECT / ".cache" / "docs"
OUTSIDE = ("script", "link", "img", "iframe", "source", "use")


class Page(HTMLParser):
    """The links, resources and anchors of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record an element."""
        given = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := given.get(name)))
        if tag == "a" and (href := given.get("href")):
            self.links.append(href)
        if tag in OUTSIDE and (target := given.get("src") or given.get("href")):
            self.loads.append(target)


def build(site: Path = SITE) -> int:
    """Build the site; a warning is an error. Returns Sphinx's exit code."""
    from sphinx.cmd.build import build_main

    shutil.rmtree(site, ignore_errors=True)  # otherwise Sphinx would not warn again about unchanged pages
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--jobs", "2", "--doctree-dir", str(site / "doctrees")]
    docs = str(PROJECT / "docs")
    return build_main([*options, "--builder", "html", docs, str(site / "html")]) or build_main(
        [*options, "--builder", "doctest", docs, str(site / "doctest")]
    )


def faults(html: Path) -> Iterator[str]:
    """Return links to missing pages and anchors, and everything that a page would load from elsewhere."""
    pages = {file: Page(file) for file in html.rglob("*.html")}
    for file, page in pages.items():
        name = file.relative_to(html)
        for target in page.loads:
            if urlsplit(target).netloc:
                yield f"{name}: loads {target}"
        for target in [*page.links, *page.loads]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            path = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not path.exists():
                yield f"{name}: {target} is not there"
            elif parts.fragment and path in pages and unquote(parts.fragment) not in pages[path].anchors:
                yield f"{name}: {target} has no such anchor"
    for sheet in html.rglob("*.css"):
        if "url(http" in sheet.read_text():
            yield f"{sheet.relative_to(html)}: loads something from elsewhere"


def serve(html: Path) -> None:
    """Serve the site on this machine."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(html))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", free_port(8020)), handler) as server:
        print(f"\n  docs   http://127.0.0.1:{server.server_port}/\n\nCtrl-C ends it.", flush=True)
        server.serve_forever()


def main() -> None:
    """Build, check, serve."""
    failed = build()
    wrong = sorted(faults(SITE / "html"))
    print("\n".join(wrong) or f"{sum(1 for _ in (SITE / 'html').glob('*.html'))} pages: every link leads somewhere")
    if failed or wrong:
        sys.exit(1)
    if "--check" not in sys.argv:
        serve(SITE / "html")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped.")
