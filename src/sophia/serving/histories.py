"""What each key's system prompts were used for: counts of tasks, never a text."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from secrets import token_bytes
from typing import TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from sophia.routing.history import History, Recalled, after, recall
from sophia.routing.nouns import Prompt
from sophia.routing.policies.policy import Vector

log = logging.getLogger("sophia.learning")

TENANTS = 500
PROMPTS = 64
TEAM_PROMPTS = 10_000
"""Prompts of a key that learns by itself, and of a team; the longest unused is forgotten."""
TEXTS = 200
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_NUMBER = np.dtype("<f4")


class _Kept(Struct, frozen=True, array_like=True):
    place: bytes
    counts: bytes
    credit: float
    requests: int


class _Saved(Struct, frozen=True):
    secret: bytes
    classes: tuple[str, ...]
    tenants: dict[str, list[_Kept]]


class _Tenant:
    """One key's histories, and what of its texts was counted lately."""

    __slots__ = ("histories", "texts")

    def __init__(self) -> None:
        self.histories: OrderedDict[bytes, History] = OrderedDict()
        self.texts: OrderedDict[int, None] = OrderedDict()


class Remembered(Struct, frozen=True):
    """A request under a system prompt, before it is counted.

    Attributes:
        place: the prompt's name among the tenant's, a digest that only this Sophia can make.
        own: shape (T,), the posterior by the text and the caller's word alone.
        text: a name for the text under this prompt, or None when it was counted before.
        history: what was known of the prompt.
        recalled: what that made of the request.
    """

    tenant: str
    place: bytes
    own: Vector
    text: int | None
    history: History
    recalled: Recalled


class Histories:
    """Remembers by tenant and system prompt what requests were about.

    Tenants share nothing: each has a bounded memory of its own, so that no traffic of one makes
    another's prompts be forgotten. Beyond `TENANTS` of them the one that asked longest ago goes.

    Args:
        classes: names of the tasks that posteriors are over.
        each: prompts that are remembered of a tenant.
    """

    def __init__(self, classes: tuple[str, ...], each: int = PROMPTS) -> None:
        self._classes = classes
        self._each = each
        # The task model takes all classes for equally usual.
        self._base = 1.0 / max(len(classes), 1)
        self._secret = token_bytes(32)
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()
        self.changes = 0

    def of(self, tenant: str, prompt: Prompt, own: Vector) -> Remembered | None:
        """Return what is remembered for a request; None when it has no system prompt.

        Nothing changes by asking; `count` the request once it is served.
        """
        if not prompt.system:
            return None
        place = self._place(tenant, prompt.system)
        text = hash((place, prompt.text))
        known = self._tenants.get(tenant)
        history = None if known is None else known.histories.get(place)
        repeated = prompt.tool_turn or (known is not None and text in known.texts)
        if history is None:
            recalled = Recalled(own, 0.0, 0.0)
            history = History(np.zeros(len(own)))
        else:
            recalled = recall(history, own, self._base, repeated=repeated)
        return Remembered(tenant, place, own, None if repeated else text, history, recalled)

    def count(self, seen: Remembered) -> None:
        """Take in a request that is being served; one that comes again counts once.

        A retry and the turns of a tool loop ask the same: only their first says something new.
        """
        if seen.text is None:
            return
        known = self._tenants.get(seen.tenant)
        if known is None:
            known = self._tenants[seen.tenant] = _Tenant()
        _limit(self._tenants, seen.tenant, TENANTS)
        before = known.histories.get(seen.place, seen.history)
        known.histories[seen.place] = after(before, seen.own, seen.recalled.foretold)
        known.texts[seen.text] = None
        _limit(known.histories, seen.place, self._each)
        _limit(known.texts, seen.text, TEXTS)
        self.changes += 1

    def dump(self) -> Callable[[], bytes]:
        """Return what writes down all that is remembered now but the latest texts, for `load`.

        Another thread may call it, which takes some microseconds for each prompt.
        """
        # A history never changes, so copies of the lists stay as they are now.
        tenants = {name: list(one.histories.items()) for name, one in self._tenants.items()}

        def written() -> bytes:
            kept = {
                name: [
                    _Kept(place, one.counts.astype(_NUMBER).tobytes(), one.credit, one.requests)
                    for place, one in histories
                ]
                for name, histories in tenants.items()
            }
            return msgspec.msgpack.encode(_Saved(self._secret, self._classes, kept))

        return written

    def load(self, blob: bytes) -> None:
        """Go on from what `dump` returned; from the beginning when that was of other tasks.

        Raises msgspec.DecodeError or ValueError when these are other bytes.
        """
        saved = msgspec.msgpack.decode(blob, type=_Saved)
        if saved.classes != self._classes:
            log.info("the tasks are told apart otherwise now: system prompts begin anew")
            return
        tenants: OrderedDict[str, _Tenant] = OrderedDict()
        for name, histories in saved.tenants.items():
            tenant = tenants[name] = _Tenant()
            for one in histories[-self._each :]:
                counts = np.frombuffer(one.counts, _NUMBER).astype(np.float64)
                if len(counts) != len(self._classes):
                    raise ValueError("a history of another number of tasks")
                tenant.histories[one.place] = History(
                    counts, float(counts.sum()), one.credit, one.requests
                )
        self._secret, self._tenants = saved.secret, tenants

    def _place(self, tenant: str, system: str) -> bytes:
        whole = f"{tenant}\0{system}".encode("utf-8", "surrogatepass")
        return blake2b(whole, digest_size=16, key=self._secret).digest()


def _limit(kept: "OrderedDict[_Key, _Value]", used: _Key, most: int) -> None:
    kept.move_to_end(used)
    if len(kept) > most:
        kept.popitem(last=False)
