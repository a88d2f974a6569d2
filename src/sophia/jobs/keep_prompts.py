"""Write down what system prompts were used for, so that a restart does not forget it."""

import asyncio
import logging
from typing import Protocol

import msgspec

from sophia.serving.histories import Histories

log = logging.getLogger("sophia.learning")


class Shelf(Protocol):
    """Where the histories of system prompts are kept, whole."""

    def prompts(self) -> bytes | None: ...

    def keep_prompts(self, blob: bytes) -> None: ...


class KeepPrompts:
    """Writes the histories when they changed; a crash loses those since the last time.

    They are no part of what a replay stands on: each decision keeps what they said.
    """

    def __init__(self, histories: Histories, shelf: Shelf) -> None:
        self._histories = histories
        self._shelf = shelf
        self._kept = histories.changes

    def begin(self) -> None:
        """Go on from what was kept; what cannot be read is left, and prompts begin anew."""
        blob = self._shelf.prompts()
        if blob is None:
            return
        try:
            self._histories.load(blob)
        except (msgspec.DecodeError, ValueError) as error:
            log.warning("what system prompts were used for cannot be read, begin anew: %s", error)

    async def __call__(self) -> None:
        """Write once, if there is anything new."""
        changes = self._histories.changes
        if changes != self._kept:
            encode = self._histories.dump()
            await asyncio.to_thread(lambda: self._shelf.keep_prompts(encode()))
            self._kept = changes
