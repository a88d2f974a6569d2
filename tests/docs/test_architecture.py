"""ARCHITECTURE.md names files that exist, and every package of the house."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sophia"
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
FILES = re.compile(r"[\w/]+\.py\b|\b(?:[a-z_0-9]+/)+(?=`)")


def test_every_file_that_it_names_exists() -> None:
    """Under `src/sophia`, or for tests under the root."""
    named = set(FILES.findall(TEXT))
    missing = [name for name in named if not ((SOURCE / name).exists() or (ROOT / name).exists())]
    assert len(named) > 40
    assert missing == []


def test_every_package_has_a_place_in_the_picture() -> None:
    """A package that the picture leaves out is one that a newcomer does not find."""
    picture = TEXT.partition("```text")[2].partition("```")[0]
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages
    assert {name for name in packages if f"{name}/" not in picture} == set()
