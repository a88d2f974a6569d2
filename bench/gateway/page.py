"""Update the measured sections of the benchmark page, between markers."""

import re
from pathlib import Path

START = """# Benchmarks

The overhead of Sophia as a gateway, and the time of one decision. Each section names the command that
measured it; `bench/README.md` describes the method.
"""


def put_section(path: Path, name: str, title: str, text: str) -> None:
    """Replace the section `name` of a page, or append it under `title`."""
    page = path.read_text() if path.exists() else START
    first, last = f"<!-- {name}: written by bench -->", f"<!-- {name}: end -->"
    section = f"{first}\n\n{text.strip()}\n\n{last}"
    pattern = re.compile(re.escape(first) + ".*?" + re.escape(last), re.DOTALL)
    if pattern.search(page):
        page = pattern.sub(lambda _: section, page)
    else:
        page = f"{page.rstrip()}\n\n## {title}\n\n{section}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
