"""A hook of mkdocs: the site shows pages of the repository's root as its own, so their links lose the folder docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """A page with those that it takes in."""

    def taken_in(found: re.Match[str]) -> str:
        return re.sub(r"\]\(docs/", "](", Path(found[1]).read_text(encoding="utf-8"))

    return re.sub(r'^--8<-- "([A-Z]+\.md)"$', taken_in, markdown, flags=re.MULTILINE)
