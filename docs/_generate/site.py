"""What the site's build does beyond mkdocs: the changelog's page, and nothing fetched from afar."""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

#: A warning here fails `mkdocs build --strict`.
log = logging.getLogger("mkdocs.hooks.tgate")

ROOT = Path(__file__).parents[2]

#: Elements that make a browser fetch something, with the attribute that says from where. A link
#: that a reader clicks is none.
FETCHES = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


def on_files(files: Files, config: Any) -> Files:
    """CHANGELOG.md stands at the root, where people look for it, and is a page all the same."""
    text = (ROOT / "CHANGELOG.md").read_text()
    files.append(File.generated(config, "changelog.md", content=text))
    return files


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Warn of everything that a reader's browser would fetch from another host."""
    for address in fetched(output):
        log.warning("%s fetches %s: the site must read offline", page.file.src_uri, address)
    return output


def fetched(html: str) -> list[str]:
    """Addresses on other hosts that a page makes a browser fetch.

    >>> fetched('<a href="https://a.org">a</a><script src="//b.org/x.js"></script>')
    ['//b.org/x.js']
    """
    reader = _Fetches()
    reader.feed(html)
    return [a for a in reader.found if re.match(r"(https?:)?//", a)]


class _Fetches(HTMLParser):
    """Collects what `FETCHES` names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in ("canonical", "next", "prev"):
            return
        if address := values.get(FETCHES.get(tag, "")):
            self.found.append(address)
