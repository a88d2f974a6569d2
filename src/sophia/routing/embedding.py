"""A text as one vector: BERT's WordPiece, and a table of static token vectors summed up."""

import re
import sys
import unicodedata
from io import BytesIO
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sophia.routing.policies.policy import Vector

Ids = NDArray[np.intp]
"""Places of words in a vocabulary."""

# An instruction stands at the beginning or the end; what is between is seldom needed.
HEAD_CHARS, TAIL_CHARS = 1000, 400
LOOKED_AT = HEAD_CHARS + TAIL_CHARS + 1
WIDE = 1.5
"""Bytes per character from which a text counts as written in a wide script."""
LONGEST_WORD = 100
CACHED_WORDS = 20_000
UNKNOWN = "[UNK]"

# Of ASCII in lower case and without control characters.
_WORD = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class Embedding:
    """A vocabulary and a vector per entry; words once cut into pieces are remembered.

    Args:
        words: the vocabulary in the order of its ids; continuations begin with `##`.
        codes: shape (V, D), int8.
        scale: shape (V,), what a row of `codes` is multiplied by.
    """

    __slots__ = ("_codes", "_folds", "_pieces", "_scale", "words")

    def __init__(
        self, words: list[str], codes: NDArray[np.int8], scale: NDArray[np.float32]
    ) -> None:
        self.words = words
        self._codes = codes
        self._scale = scale
        self._pieces = _Pieces(words)
        self._folds = _Folds()

    @property
    def size(self) -> int:
        """The length of a vector."""
        return int(self._codes.shape[1])

    def ids(self, text: str) -> Ids:
        """Return the token ids of a text as BERT-uncased cuts it, without special tokens, (N,)."""
        pieces = map(self._pieces.__getitem__, self._words(text))
        return np.fromiter(chain.from_iterable(pieces), np.intp)

    def vector(self, ids: Ids) -> Vector:
        """Return the L2-normalised sum of the tokens' vectors, (D,); zeros for no token."""
        if not len(ids):
            return np.zeros(self.size)
        total = self._scale.take(ids) @ self._codes.take(ids, axis=0).astype(np.float32)
        length = float(np.sqrt(total @ total))
        return (total / length if length else total).astype(np.float64)

    def _words(self, text: str) -> list[str]:
        if text.isascii():
            if _CONTROL.search(text):
                text = _CONTROL.sub("", text)
            return _WORD.findall(text.lower())
        return text.translate(self._folds).split()


class _Pieces(dict[str, tuple[int, ...]]):
    """The ids of each word; one outside the vocabulary is cut when it is met, and remembered."""

    def __init__(self, vocabulary: list[str]) -> None:
        super().__init__(zip(vocabulary, zip(range(len(vocabulary))), strict=True))
        self._cut: list[str] = []

    def __missing__(self, word: str) -> tuple[int, ...]:
        if len(self._cut) >= CACHED_WORDS:
            for cut in self._cut:
                del self[cut]
            self._cut.clear()
        self[word] = pieces = self._pieces(word)
        self._cut.append(word)
        return pieces

    def _pieces(self, word: str) -> tuple[int, ...]:
        """Cut a word into the longest entries of the vocabulary, from the left."""
        unknown = self[UNKNOWN]
        if len(word) > LONGEST_WORD:
            return unknown
        pieces: list[int] = []
        start, prefix = 0, ""
        while start < len(word):
            for end in range(len(word), start, -1):
                found = self.get(prefix + word[start:end], unknown)
                # What was cut before is no entry: it has several ids, or none of its own.
                if len(found) == 1 and found is not unknown:
                    break
            else:
                return unknown
            pieces += found
            start, prefix = end, "##"
        return tuple(pieces)


def ends(text: str) -> str:
    """Return what is read of a long text: its beginning and its end."""
    head, tail = HEAD_CHARS, TAIL_CHARS
    if not text.isascii() and len(text.encode("utf-8", "replace")) >= WIDE * len(text):
        # Wide scripts are cut into more pieces, and say more in fewer characters.
        head, tail = head // 2, tail // 2
    if len(text) <= head + tail + 1:
        return text
    return f"{text[:head]} {text[-tail:]}"


def read_embedding(blob: bytes) -> Embedding:
    """Return the embedding written in `blob`, an .npz of `codes`, `scale` and `words`."""
    with np.load(BytesIO(blob), allow_pickle=False) as table:
        words = table["words"].tobytes().decode().split("\n")
        return Embedding(words, table["codes"], table["scale"].astype(np.float32))


class _Folds(dict[int, str]):
    """What each character becomes: lower case without accents, marks and ideographs set apart."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = _fold(chr(code))
        return folded


def _fold(char: str) -> str:
    if char.isspace() and not _is_control(char):
        return " "
    if char in "\x00\ufffd" or _is_control(char):
        return ""
    plain = "".join(
        part for part in unicodedata.normalize("NFD", char) if unicodedata.category(part) != "Mn"
    )
    apart = any(low <= ord(char) <= high for low, high in _IDEOGRAPHS)
    lowered = "".join(part.lower() for part in plain)
    spaced = "".join(f" {part} " if _is_mark(part) else part for part in lowered)
    return f" {spaced} " if apart else sys.intern(spaced)


def _is_control(char: str) -> bool:
    return char not in "\t\n\r" and unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs"}


def _is_mark(char: str) -> bool:
    if char.isascii():
        return not char.isalnum() and not char.isspace() and char.isprintable()
    return unicodedata.category(char).startswith("P")
