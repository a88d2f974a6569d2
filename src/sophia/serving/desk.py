"""Everything that serving a request needs, put together once at start."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sophia.core.ports import Sink
from sophia.routing.nouns import Plan
from sophia.serving.checking import NOT_CHECKING, Checking
from sophia.serving.ear import Listen
from sophia.serving.insight import Insight
from sophia.serving.knowledge import Knowledge, Limits, Upstreams
from sophia.serving.reconcile import Reconciler
from sophia.serving.tab import Books


@dataclass(slots=True)
class Desk:
    """The standing parts; `knowledge` and `limits` are replaced whole when they change.

    `encode` turns a plan into JSON bytes for the ledger; `insight` is what learning adds to a
    decision, `checking` how answers are looked at before the caller has them, `listen` who listens
    to them for what follows.
    """

    knowledge: Knowledge
    upstreams: Upstreams
    books: Books
    limits: Limits
    reconciler: Reconciler
    encode: Callable[[Plan], bytes]
    sinks: tuple[Sink, ...] = field(default=())
    insight: Insight | None = None
    checking: Checking = NOT_CHECKING
    listen: Listen | None = None
