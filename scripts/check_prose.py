"""Check that docstrings and documents use the plain words of the field.

Words that stand in for a noun ("who", "nobody", "told", "what it is") may make up two in a
thousand words of all docstrings, and of all documents; code in them does not count. No docstring
begins with a question word. `--list` prints every place.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PER_THOUSAND = 2.0
WORST = 10
AVOIDED = re.compile(
    r"\b(who|whom|whose|nobody|somebody|anybody|everybody|told|tells?|said|hears?|heard"
    r"|dear|dearer|dearest|purse|nought|by\s+lot|what\s+(?:it|is|was|were|they|a|an|the))\b",
    re.IGNORECASE,
)
QUESTION = re.compile(r"(what|who|whom|whose|where|how|when)\b", re.IGNORECASE)
# A fenced block, or code within a paragraph.
CODE = re.compile(
    r"^ *(```|~~~).*?^ *\1[^\n]*$|(`+)[^`](?:(?!\n\n).)*?\2", re.DOTALL | re.MULTILINE
)
WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")
DOCUMENTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "ARCHITECTURE.md")


class Text(NamedTuple):
    """A docstring or a document, without its code; `line` is where it begins."""

    path: Path
    line: int
    prose: str


def without_code(text: str) -> str:
    """Return `text` with the characters of its code blanked, so that lines keep their numbers."""
    return CODE.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), text)


def docstrings() -> Iterator[Text]:
    """Yield each docstring of the package and of the lab."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "lab").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kinds) and ast.get_docstring(node):
                docstring = node.body[0]
                assert isinstance(docstring, ast.Expr)
                assert isinstance(docstring.value, ast.Constant)
                yield Text(path, docstring.lineno, without_code(str(docstring.value.value)))


def documents() -> Iterator[Text]:
    """Yield each document."""
    paths = [*sorted((ROOT / "docs").rglob("*.md")), *(ROOT / name for name in DOCUMENTS)]
    for path in paths:
        yield Text(path, 1, without_code(path.read_text()))


def findings(texts: list[Text]) -> Iterator[tuple[Path, int, str]]:
    """Yield the file, line and wording of each avoided word."""
    for text in texts:
        for match in AVOIDED.finditer(text.prose):
            line = text.line + text.prose.count("\n", 0, match.start())
            yield text.path, line, " ".join(match[0].split())


def check_share(kind: str, texts: list[Text], *, listed: bool) -> bool:
    """Print how many avoided words there are; return whether they are few enough."""
    words = sum(len(WORD.findall(text.prose)) for text in texts)
    found = list(findings(texts))
    share = 1000 * len(found) / max(1, words)
    few = share <= PER_THOUSAND
    print(f"{kind}: {len(found)} avoided of {words:,} words, {share:.1f} per 1,000", end="")
    print("" if few else f", more than {PER_THOUSAND:g}")
    counts: dict[Path, int] = {}
    for path, line, wording in found:
        counts[path] = counts.get(path, 0) + 1
        if listed:
            print(f"  {path.relative_to(ROOT)}:{line} {wording}")
    if not few and not listed:
        for path, count in sorted(counts.items(), key=lambda item: -item[1])[:WORST]:
            print(f"  {count:4} {path.relative_to(ROOT)}")
    return few


def check_beginnings(texts: list[Text]) -> bool:
    """Print docstrings that begin with a question word; return whether there are none."""
    questions = [text for text in texts if QUESTION.match(text.prose.lstrip())]
    if questions:
        print(f"{len(questions)} docstrings begin with a question word; begin with a noun or verb:")
    for path, line, _ in questions:
        print(
            f"  {path.relative_to(ROOT)}:{line} {path.read_text().splitlines()[line - 1].strip()}"
        )
    return not questions


def main() -> int:
    """Check both kinds of text; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print every place")
    listed = parser.parse_args().list
    in_code, in_documents = list(docstrings()), list(documents())
    kept = [
        check_share("docstrings", in_code, listed=listed),
        check_share("documents", in_documents, listed=listed),
        check_beginnings(in_code),
    ]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
