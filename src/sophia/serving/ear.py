"""What listens to an answer while it is given, for those who judge it when it is over."""

from collections.abc import Callable

from msgspec import Struct

from sophia.core.calls import Piece
from sophia.serving.decide import Decision
from sophia.serving.request import Request
from sophia.serving.tab import Payer


class Ending(Struct, frozen=True):
    """How an answer ended.

    Attributes:
        model: who gave it.
        finish: why it says that it ended; None when it was left before that.
        complete: whether all of it was given; otherwise the caller went away.
        clamped: whether the purse limited its length.
        marked: whether a small model gave it a mark already.
    """

    model: str
    finish: str | None
    complete: bool
    clamped: bool = False
    marked: bool = False


class Ear:
    """Listens to one answer.

    Args:
        told: hears how it ended, once.
        most: bytes of the answer that are kept until then; nothing of a longer one is.
    """

    __slots__ = ("_left", "_told", "chunks")

    def __init__(self, told: Callable[["Ear", Ending], None], most: int = 0) -> None:
        self.chunks: list[bytes] = []
        self._told: Callable[[Ear, Ending], None] | None = told
        self._left = most

    @property
    def whole(self) -> bool:
        """Whether all that was said is kept."""
        return self._left > 0

    def hear(self, piece: Piece) -> None:
        """Keep what is given, as far as it is wanted."""
        if self._left > 0:
            self._left -= sum(map(len, piece.chunks))
            if self._left > 0:
                self.chunks += piece.chunks
            else:
                self.chunks = []

    def end(self, ending: Ending) -> None:
        """Tell how it ended; only the first time counts."""
        told, self._told = self._told, None
        if told is not None:
            told(self, ending)


Listen = Callable[[Request, Decision, Payer, bool], Ear | None]
"""Decides who listens to an answer that begins; the last argument says that it was checked."""
