"""The documents hang together: their links lead somewhere, and they fit every machine."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
MACHINE = re.compile(r"(?<![\w.~-])/(?:root|home|work|Users|mnt|opt)/\w")


def documents() -> list[Path]:
    """Return the Markdown files that git knows, or will."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split()]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths(path: Path) -> None:
    """A relative link leads to a file and, with `#`, to a heading; no path is one machine's own."""
    text = path.read_text()
    broken = [link for link in LINK.findall(CODE.sub("", text)) if not leads(path, link)]

    assert broken == []
    assert MACHINE.findall(text) == []


def leads(path: Path, link: str) -> bool:
    """Say whether a link of `path` leads somewhere; addresses on the net are taken on trust."""
    if re.match(r"[a-z]+:", link):
        return True
    name, _, anchor = link.partition("#")
    target = (path.parent / name).resolve() if name else path
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target.read_text())


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
