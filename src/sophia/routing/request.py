"""What a decision is given: the request's counts and hints, the models, and the key's limits."""

from collections.abc import Callable, Collection

from msgspec import Struct

from sophia.catalogue.model import Model
from sophia.routing.learned import Learned, Seen
from sophia.routing.nouns import Features, Hints, Prompt
from sophia.routing.optimizer import DEFAULT_PER_REQUEST_NANO
from sophia.routing.pool import Pool
from sophia.routing.rules import RuleBook

LEARNED = "learned"
POLICIES = ("heuristic", LEARNED, "cheap", "fast", "best")


class Limits(Struct, frozen=True):
    """What the key behind a request may spend and use.

    Money in nano-dollars, None for no limit; `price_headroom` is a percentage put on every listed
    price before it is held; `allowed` names the models that the key may use, None for all.
    """

    per_request_nano: int | None = DEFAULT_PER_REQUEST_NANO
    budget_left_nano: int | None = None
    max_attempts: int = 3
    price_headroom: int = 0
    allowed: frozenset[str] | None = None


NO_RULES = RuleBook()


class RouteRequest(Struct, frozen=True):
    """Everything that a decision may depend on.

    `find` resolves a name that a rule, a hint or `fallbacks` uses; `today` is an ISO date;
    `unhealthy` holds ids of models that are not to be tried now; `learned` is the policy that
    chooses once it has learned enough, `seen` the request as it sees it. `features`
    spare a second look at the prompt, when somebody has looked already.
    """

    prompt: Prompt
    hints: Hints
    pool: Pool
    find: Callable[[str], Model | None]
    limits: Limits
    today: str
    rulebook: RuleBook = NO_RULES
    fallbacks: tuple[str, ...] = ()
    unhealthy: Collection[str] = frozenset()
    learned: Learned | None = None
    seen: Seen | None = None
    features: Features | None = None
