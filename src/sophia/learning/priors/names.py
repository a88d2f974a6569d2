"""Match the names that benchmarks, providers and catalogues give to the same model."""

import re
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct

_AUTHOR = re.compile(r"^~?[\w.-]+/")
_PRECISION = re.compile(r"\b(?:nv)?fp\d+|bf16|\(t=1\)")
_MONTH, _DAY = r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_DATE = re.compile(
    rf"(?<!\d)(?:(?:20)?\d{{2}}[-.]?{_MONTH}[-.]?{_DAY}|{_MONTH}-20\d{{2}}|{_MONTH}-{_DAY})(?!\d)"
)
_TOKEN = re.compile(r"a?\d+(?:x\d+)?(?:[._]\d+)?[bek](?![a-z0-9])|\d+[a-z]+|[a-z]+|\d+")
_SIZE = re.compile(r"a?[\d.x_]+[be]")
_TOTAL_SIZE = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)b")
_CONTEXT = re.compile(r"\d+k")
_IGNORED = frozenset(
    {"amazon", "anthropic", "batch", "beta", "chat", "exp", "fc", "free", "hf", "hyperbolic"}
    | {"inst", "instruct", "it", "latest", "medium", "meta", "mistralai", "model", "nvidia"}
    | {"open", "openai", "preview", "sambanova"}
)
_MORE_EFFORT = frozenset({"high", "max", "reasoner", "reasoning", "thinking", "xhigh"})
_LESS_EFFORT = frozenset({"instant", "low", "minimal", "no", "non", "none"})
_IDENTIFYING_PARTS = 2
_CACHED_NAMES = 4096
"""More than a catalogue has, which is read several times at the start."""
_PRODUCT_WORDS = {"max": {"codex", "fugu", "qwen"}, "medium": {"magistral", "mistral", "phi"}}


class ModelName(Struct, frozen=True, kw_only=True):
    """A model's name in parts.

    Attributes:
        line: the words of the name, and the numbers of its version.
        sizes: counts of parameters, such as `70b` and `a3b`.
        revision: digits that name a release, such as `0613` or `2407`.
        date: the release date, without separators.
        effort: the reasoning effort: `more`, `less`, or empty.
    """

    line: tuple[frozenset[str], tuple[str, ...]]
    sizes: frozenset[str] = frozenset()
    revision: str = ""
    date: str = ""
    effort: str = ""

    @property
    def billions(self) -> float | None:
        """Total parameters in billions, where the name tells."""
        found = [_TOTAL_SIZE.fullmatch(size) for size in self.sizes]
        sizes = [float(one[1] or 1) * float(one[2]) for one in found if one is not None]
        return max(sizes, default=None)

    def similarity(self, other: "ModelName") -> int:
        """Return how many parts agree, or -1 when two names mean different models.

        A part that only one name has does not contradict; nor do dates and efforts, which are
        releases and modes of one model.
        """
        if self.line != other.line:
            return -1
        mine = (self.sizes, self.revision, self.date, self.effort)
        theirs = (other.sizes, other.revision, other.date, other.effort)
        total = 0
        for at, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            if a and b and a != b and at < _IDENTIFYING_PARTS:
                return -1
            total += 2 * (a == b) + (not a or not b)
        return total


@lru_cache(_CACHED_NAMES)
def parse_model_name(name: str) -> ModelName:
    """Return the parts of a model's name, without its author.

    `anthropic/claude-3.5-sonnet`, `claude-3-5-sonnet` and `Claude 3.5 Sonnet` have equal parts.
    """
    text = _PRECISION.sub(" ", _AUTHOR.sub("", name.lower()))
    dates = ["".join(re.findall(r"\d+", found))[-6:] for found in _DATE.findall(text)]
    tokens = _TOKEN.findall(_DATE.sub(" ", text))
    numbers = [token for token in tokens if token.isdigit()]
    words = {token for token in tokens if not token.isdigit() and not _CONTEXT.fullmatch(token)}
    sizes = frozenset(word for word in words if _SIZE.fullmatch(word))
    kept = {word for word, products in _PRODUCT_WORDS.items() if words & products}
    less = words & _LESS_EFFORT or ("chat" in words and "gpt" in words)
    effort = "less" if less else "more" if words & (_MORE_EFFORT - kept) else ""
    dropped = (_IGNORED | _MORE_EFFORT | _LESS_EFFORT) - kept
    return ModelName(
        line=(
            frozenset(words - sizes - dropped),
            tuple(number for number in numbers if len(number) < 3 and number != "0"),
        ),
        sizes=sizes,
        revision="".join(number for number in numbers if 3 <= len(number) <= 4),
        date="".join(dates),
        effort=effort,
    )


class NameIndex:
    """Names of known models, to find the one that another spelling means."""

    def __init__(self, names: Iterable[str]) -> None:
        """Index `names`; of equally similar ones the first wins."""
        self._by_line: dict[object, list[tuple[str, ModelName]]] = {}
        for name in names:
            parts = parse_model_name(name)
            self._by_line.setdefault(parts.line, []).append((name, parts))

    def find(self, name: str) -> str | None:
        """Return the known name most similar to `name`; None when none means the same model."""
        wanted = parse_model_name(name)
        rated = [
            (known.similarity(wanted), -at, text)
            for at, (text, known) in enumerate(self._by_line.get(wanted.line, ()))
        ]
        best = max(rated, default=(-1, 0, ""))
        return best[2] if best[0] >= 0 else None
