"""Repetition: a model that writes the same words again and again."""

from collections.abc import Sequence

from sophia.serving.attempts.choices import parse_choices

LOOKED_AT = 400
"""Characters at the end of an answer that must be one short piece, again and again."""
MAX_PIECE = 50


class RepetitionDetector:
    """Looks at the end of a text that grows."""

    def __init__(self) -> None:
        self._end = ""
        self._unseen = 0

    def repeats(self, chunks: Sequence[bytes]) -> bool:
        """Return whether the text repeats itself with these further chunks."""
        text = "".join(choice.text for choice in parse_choices(chunks))
        self._end = (self._end + text)[-LOOKED_AT:]
        self._unseen += len(text)
        if len(self._end) < LOOKED_AT or self._unseen < MAX_PIECE:
            return False
        self._unseen = 0
        return find_period(self._end) <= MAX_PIECE


def find_period(text: str) -> int:
    """Return the length of the shortest piece that `text` repeats, the last time perhaps in part.

    By the prefix function of Knuth, Morris and Pratt (1977).
    """
    borders, length = [0] * len(text), 0
    for at in range(1, len(text)):
        while length and text[at] != text[length]:
            length = borders[length - 1]
        length += text[at] == text[length]
        borders[at] = length
    return len(text) - borders[-1] if text else 0
