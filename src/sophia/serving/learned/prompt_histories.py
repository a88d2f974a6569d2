"""Tasks of earlier requests under each key's system prompts: counts, never a text."""

import logging
from collections.abc import Callable
from hashlib import blake2b
from secrets import token_bytes

import msgspec
import numpy as np
from msgspec import Struct

from sophia.core.bounded import BoundedDict
from sophia.routing.bandit.context.prompt_history import (
    HistoryLookup,
    HistoryPosterior,
    PromptHistory,
    apply_history,
    update_history,
)
from sophia.routing.bandit.policy import Vector
from sophia.routing.types import Prompt

log = logging.getLogger("sophia.learning")

MAX_TENANTS = 500
MAX_PROMPTS = 64
MAX_TEAM_PROMPTS = 10_000
"""Prompts remembered of a key that learns by itself, and of keys that learn together."""
MAX_TEXTS = 200
_FLOAT32 = np.dtype("<f4")


class _SavedHistory(Struct, frozen=True, array_like=True):
    prompt_digest: bytes
    counts: bytes
    log_odds: float
    requests: int


class _SavedHistories(Struct, frozen=True):
    secret: bytes
    classes: tuple[str, ...]
    tenants: dict[str, list[_SavedHistory]]


class _TenantHistories:
    """One tenant's histories, and the hashes of its latest texts."""

    def __init__(self, max_prompts: int) -> None:
        self.histories: BoundedDict[bytes, PromptHistory] = BoundedDict(max_prompts)
        self.texts: BoundedDict[int, None] = BoundedDict(MAX_TEXTS)


class PromptHistories:
    """Histories by tenant and system prompt.

    Tenants share nothing: each has a bounded memory of its own, so that the traffic of one evicts
    nothing of another. Beyond `MAX_TENANTS` the least recently used tenant is evicted, beyond
    `max_prompts` the least recently used prompt of a tenant. Posteriors are over `classes`.
    """

    def __init__(self, classes: tuple[str, ...], max_prompts: int = MAX_PROMPTS) -> None:
        self._classes = classes
        self._max_prompts = max_prompts
        # The task model assumes that all classes are equally frequent.
        self._base_rate = 1.0 / max(len(classes), 1)
        self._secret = token_bytes(32)
        self._tenants: BoundedDict[str, _TenantHistories] = BoundedDict(MAX_TENANTS)
        self.changes = 0

    def look_up(self, tenant: str, prompt: Prompt, posterior: Vector) -> HistoryLookup | None:
        """Return the history of a request's system prompt; None when it has no system prompt.

        Changes nothing; `record` the request once it is served.
        """
        if not prompt.system:
            return None
        digest = self._prompt_digest(tenant, prompt.system)
        text_hash = hash((digest, prompt.text))
        known = self._tenants.get(tenant)
        history = None if known is None else known.histories.get(digest)
        repeated = prompt.after_tool_result or (known is not None and text_hash in known.texts)
        if history is None:
            adjusted = HistoryPosterior(posterior, 0.0, 0.0)
            history = PromptHistory(np.zeros(len(posterior)))
        else:
            adjusted = apply_history(history, posterior, self._base_rate, already_counted=repeated)
        return HistoryLookup(
            tenant=tenant,
            prompt_digest=digest,
            posterior=posterior,
            text_hash=None if repeated else text_hash,
            history=history,
            adjusted=adjusted,
        )

    def record(self, lookup: HistoryLookup) -> None:
        """Count a request that is being served.

        A retry and the turns of a tool loop repeat a request: only the first one counts.
        """
        if lookup.text_hash is None:
            return
        known = self._tenants.get(lookup.tenant) or _TenantHistories(self._max_prompts)
        self._tenants[lookup.tenant] = known
        before = known.histories.get(lookup.prompt_digest, lookup.history)
        known.histories[lookup.prompt_digest] = update_history(
            before, lookup.posterior, lookup.adjusted.log_bayes_factor
        )
        known.texts[lookup.text_hash] = None
        self.changes += 1

    def prepare_dump(self) -> Callable[[], bytes]:
        """Return a function that serializes the present state, without the latest texts.

        Another thread may call it; it takes some microseconds for each prompt.
        """
        # A history never changes, so copies of the lists stay as they are now.
        tenants = {name: list(known.histories.items()) for name, known in self._tenants.items()}

        def dump() -> bytes:
            saved = {
                name: [_save(digest, history) for digest, history in histories]
                for name, histories in tenants.items()
            }
            return msgspec.msgpack.encode(_SavedHistories(self._secret, self._classes, saved))

        return dump

    def load(self, blob: bytes) -> None:
        """Restore the state of a dump; one with other tasks is ignored.

        Raises msgspec.DecodeError or ValueError when the bytes are no dump.
        """
        saved = msgspec.msgpack.decode(blob, type=_SavedHistories)
        if saved.classes != self._classes:
            log.info("the task classes have changed: histories of system prompts start again")
            return
        tenants: BoundedDict[str, _TenantHistories] = BoundedDict(MAX_TENANTS)
        for name, histories in saved.tenants.items():
            tenant = tenants[name] = _TenantHistories(self._max_prompts)
            for history in histories[-self._max_prompts :]:
                counts = np.frombuffer(history.counts, _FLOAT32).astype(np.float64)
                if len(counts) != len(self._classes):
                    raise ValueError("a history of another number of tasks")
                tenant.histories[history.prompt_digest] = PromptHistory(
                    counts, float(counts.sum()), history.log_odds, history.requests
                )
        self._secret, self._tenants = saved.secret, tenants

    def _prompt_digest(self, tenant: str, system: str) -> bytes:
        text = f"{tenant}\0{system}".encode("utf-8", "surrogatepass")
        return blake2b(text, digest_size=16, key=self._secret).digest()


def _save(digest: bytes, history: PromptHistory) -> _SavedHistory:
    counts = history.counts.astype(_FLOAT32).tobytes()
    return _SavedHistory(digest, counts, history.log_odds, history.request_count)
