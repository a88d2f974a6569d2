"""Overlap of a continued text with what came before it: models often repeat the last words."""

MIN_OVERLAP = 8
"""Characters that two texts must share before they count as repeated, not as a coincidence."""


class OverlapFilter:
    """Takes the beginning of a continuation away, as far as it repeats the end of `before`.

    Text is held back while it may still turn out to be a repetition; an answer that begins anew
    and repeats all of `before` counts as one.
    """

    def __init__(self, before: str) -> None:
        self._before = before
        self._held = ""
        self._decided = not before

    def feed(self, text: str) -> str:
        """Return what is new in the text so far; empty while that is not clear."""
        if self._decided:
            return text
        self._held += text
        if self._held in self._before:
            return ""
        return self.flush()

    def flush(self) -> str:
        """Return what is new in the text that is still held back, since no more follows."""
        self._decided = True
        held, self._held = self._held, ""
        return held[_measure_overlap(self._before, held) :]


def _measure_overlap(before: str, text: str) -> int:
    """Return how many characters at the start of `text` repeat the end of `before`."""
    for length in range(min(len(before), len(text)), 0, -1):
        if length < MIN_OVERLAP and length < len(before):
            break
        if before.endswith(text[:length]):
            return length
    return 0
