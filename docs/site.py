"""A hook of mkdocs: the site shows pages of the repository's root as its own, so their links lose the folder docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

WIDE = {"systems.md"}  # their tables take the column of the table of contents


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """A page with those that it takes in."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]

    def taken_in(found: re.Match[str]) -> str:
        return re.sub(r"\]\(docs/", "](", Path(found[1]).read_text(encoding="utf-8"))

    return re.sub(r'^--8<-- "([A-Z]+\.md)"$', taken_in, markdown, flags=re.MULTILINE)
