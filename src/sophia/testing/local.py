"""Real text for the sandbox from a small model that runs on this machine, when it is installed."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from sophia.testing.asked import Asked


@dataclass(frozen=True, slots=True)
class Live:
    """Text while it is generated; `fingerprint` names the model that writes it."""

    pieces: AsyncIterator[str]
    fingerprint: str


class LocalText(Protocol):
    """Writes plain text for a request."""

    async def speak(self, asked: Asked) -> Live | None:
        """Return the text from its first piece on, or None when there will be none."""
