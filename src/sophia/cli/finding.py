"""One line of `sophia doctor`: what was looked at, how it stands, and how to mend it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["good", "odd", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`state` is `good`, `odd` (works, but look at it) or `bad` (mend it, or it does not work)."""

    state: State
    what: str
    seen: str
    mend: str = ""
