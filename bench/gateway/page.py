"""Keeps the measured sections of the reference page between marks, and leaves the rest of it alone."""

import re
from pathlib import Path

START = """# Benchmarks

What Sophia costs as a gateway, and what one decision costs. Every number here was measured by the
command beside it; `bench/README.md` says how to read and repeat them.
"""


def put_section(path: Path, name: str, title: str, text: str) -> None:
    """Replace the section `name` of a page, or append it under `title`."""
    page = path.read_text() if path.exists() else START
    first, last = f"<!-- {name}: written by bench -->", f"<!-- {name}: end -->"
    section = f"{first}\n\n{text.strip()}\n\n{last}"
    marked = re.compile(re.escape(first) + ".*?" + re.escape(last), re.DOTALL)
    if marked.search(page):
        page = marked.sub(lambda _: section, page)
    else:
        page = f"{page.rstrip()}\n\n## {title}\n\n{section}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
