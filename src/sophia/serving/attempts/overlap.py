"""Overlap of a continued text with what came before it: models often repeat the last words."""

from sophia.serving.attempts.repetition import find_period

MIN_OVERLAP = 8
"""Characters that two texts must share before they count as repeated, not as a coincidence."""
MAX_OVERLAP = 20_000
"""Longest repetition that is looked for, besides that of the whole text."""


class OverlapFilter:
    """Takes the beginning of a continuation away, as far as it repeats the end of `before`.

    Text is held back while it may still turn out to be a repetition; an answer that begins anew
    and repeats all of `before` counts as one. A short piece again and again, like equal rows of a
    table, is new text.
    """

    def __init__(self, before: str) -> None:
        self._before = before
        self._held: list[str] = []
        self._size = 0
        # The first place where `before` has the text that is held back.
        self._at = 0
        self._decided = not before

    def feed(self, text: str) -> str:
        """Return what is new in the text so far; empty while that is not clear."""
        if self._decided or not text:
            return text
        place, before = self._at + self._size, self._before
        self._held.append(text)
        self._size += len(text)
        if before.startswith(text, place):
            return ""
        self._at = before.find("".join(self._held), self._at + 1)
        return "" if self._at >= 0 else self.flush()

    def flush(self) -> str:
        """Return what is new in the text that is still held back, since no more follows."""
        self._decided = True
        held, self._held = "".join(self._held), []
        return held[_measure_overlap(self._before, held) :]


def _measure_overlap(before: str, text: str) -> int:
    """Return how many characters at the start of `text` repeat the end of `before`."""
    if text.startswith(before):
        return len(before)
    length = _find_longest_border(text[:MAX_OVERLAP], before[-MAX_OVERLAP:])
    repeated = text[:length]
    if length < MIN_OVERLAP or find_period(repeated) <= length // 2:
        return 0
    return 0 if before.endswith(repeated * 2) else length


def _find_longest_border(text: str, before: str) -> int:
    """Return the length of the longest start of `text` that ends `before`.

    By the prefix function of Knuth, Morris and Pratt (1977).
    """
    borders, length = [0] * len(text), 0
    for at in range(1, len(text)):
        while length and text[at] != text[length]:
            length = borders[length - 1]
        length += text[at] == text[length]
        borders[at] = length
    matched = 0
    for char in before:
        while matched and (matched == len(text) or char != text[matched]):
            matched = borders[matched - 1]
        matched += bool(text) and char == text[matched]
    return matched
