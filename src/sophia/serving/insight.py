"""What learning adds to a decision: the request as numbers, and the policy whose turn it is."""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from secrets import token_bytes
from typing import TypeVar

from msgspec.structs import replace

from sophia.core.events import Settled
from sophia.core.ports import Clock
from sophia.learning.attempts import answers, failed
from sophia.learning.live import Live
from sophia.routing.arms import arm_of, mode_of
from sophia.routing.evidence import as_bytes, rounded
from sophia.routing.learned import Learned, Seen
from sophia.routing.nouns import Features, Hints, Plan, Prompt, Sources
from sophia.routing.policies.policy import Sight, Vector
from sophia.routing.request import LEARNED
from sophia.serving.histories import Histories, Remembered
from sophia.serving.pacing import Paces
from sophia.serving.request import Request, readable
from sophia.serving.sense import Glance

Look = Callable[[Prompt, Features, Hints, str], Glance]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

CONVERSATIONS = 10_000
UNHEARD, UNHEARD_SHARE = 1000, 0.1
TIMED_FIRST = 100
"""So many answers of an arm are timed all, and of those after them one in 32."""
_MASK = (1 << 64) - 1
_CHALLENGED, _JUDGED, _TIMED = 2, 5, 7
"""The numbers of the lots: whether a challenger rates, an answer is judged, and it is timed."""


class Insight:
    """Looks at requests for the learned policy, and remembers what it was given.

    Args:
        live: the policy that learns while it serves.
        look: turns a request of a tenant into numbers.
        histories: what system prompts were used for before.
        classes: names of the tasks that it tells apart.
        paces: of the keys' daily budgets, if they are to be kept on pace.
        clock: tells the time of day to them.

    `heard` says whether anybody sent feedback since the start; `asked` is the share of answers that
    somebody is to be asked about.
    """

    def __init__(  # noqa: PLR0913 - each is one thing that a decision may stand on
        self,
        live: Live,
        look: Look,
        clock: Clock,
        classes: tuple[str, ...] = (),
        paces: Paces | None = None,
        histories: Histories | None = None,
    ) -> None:
        self.live = live
        self.classes = classes
        self._look = look
        self._clock = clock
        self._paces = paces
        self.histories = histories or Histories(classes)
        self._remembered: tuple[int, Remembered] | None = None
        self.asked = 0.0
        self.heard = False
        self._unheard = 0
        self._conversations: OrderedDict[bytes, str] = OrderedDict()
        self._asked: OrderedDict[int, tuple[bytes | None, Vector]] = OrderedDict()
        self._secret = token_bytes(16)

    def of(
        self, request: Request, features: Features, hints: Hints, left_nano: int | None = None
    ) -> tuple[Learned | None, Seen | None]:
        """Return the learned policy, if it is its turn, and the request as it sees it.

        Where nobody ever sends feedback, most requests are not looked at, since it would be in
        vain: then there is neither. `left_nano` is what the key may still spend today.
        """
        lot, draw = lots(request.id)
        if not (self.heard or self.live.heard) and hints.policy != LEARNED:
            self._unheard += 1
            if self._unheard > UNHEARD and lot >= UNHEARD_SHARE:
                return None, None
        sight, sources = self._see(request, features, hints)
        learned = self.live.learned(
            lot,
            sight.tenant,
            asked=hints.policy == LEARNED,
            turn=lot_of(request.id, _CHALLENGED),
        )
        if learned is not None and not (hints.explore and request.principal.explores):
            learned = learned.still()
        current = self._current(request, hints)
        mode = mode_of(request.prompt)
        price = 0.0
        if self._paces is not None and left_nano is not None:
            key_id = request.principal.key_id
            price = self._paces.asked(key_id, left_nano, self._clock.wall())
        by_lot = hints.policy is None and hints.rule is None
        asked = lot_of(request.id, _JUDGED) < self.asked and readable(request.prompt)
        state = self.live.state
        return learned, Seen(
            sight, draw, state, current, price, mode, by_lot, asked, request.stream, sources
        )

    def _see(
        self, request: Request, features: Features, hints: Hints
    ) -> tuple[Sight, Sources | None]:
        """Return the request as it is kept, and what told its task where not the text alone."""
        glance = self._look(request.prompt, features, hints, request.principal.key_id)
        sight = glance.sight
        remembered = self.histories.of(sight.tenant, request.prompt, sight.tasks)
        self._remembered = None
        earlier = 0
        if remembered is not None:
            self._remembered = request.id, remembered
            earlier = remembered.history.requests
            tasks = remembered.recalled.tasks
            sight = replace(sight, tasks=tasks, novelty=float(tasks[-1]))
        if not earlier and hints.task_type is None:
            return rounded(sight), None
        return rounded(sight), sources_of(glance.text, hints, remembered)

    def note(self, request: Request, plan: Plan, seen: Seen) -> None:
        """Remember a decision that is being carried out."""
        if self._remembered is not None and self._remembered[0] == request.id:
            # Only what is served counts; asking what would be chosen leaves no trace.
            self.histories.count(self._remembered[1])
            self._remembered = None
        place = self._place(request, request.hints)
        _put(self._asked, request.id, (place, seen.sight.tasks))
        evidence = plan.evidence
        if evidence is not None and evidence.rated:
            self.live.dealt(seen.sight.tasks, plan.attempts[0].model, evidence)

    def emit(self, event: Settled) -> None:
        """Hear what failed, how long an answer was, how long it took and what it cost.

        Of well-known arms' answers to requests that nobody looked at, one in 32 is noted.
        """
        if self._paces is not None and event.attempts:
            self._paces.paid(event.attempts[0].key_id, event.cost_nano, self._clock.wall())
        known = self._asked.pop(event.request_id, None)
        if not event.attempts:
            return
        # By whom was asked first, whatever came of it: else failures would count more than answers.
        first = event.attempts[0].model
        drawn = self.live.habits.seen(arm_of(first, event.mode)) < TIMED_FIRST
        drawn = drawn or _one_in_32(event.request_id)
        if known is None and not drawn:
            return
        place, tasks = known or (None, None)
        for outcome in event.attempts:
            found = failed(outcome)
            if found is not None:
                arm = arm_of(outcome.model, event.mode)
                self.live.habits.tried(arm, outcome.at_ms, failed=found)
        if drawn:
            for answer in answers(event, tasks):
                self.live.answered(answer)
        if place is not None and event.status == 200:
            _put(self._conversations, place, event.model)

    def _current(self, request: Request, hints: Hints) -> str | None:
        place = self._place(request, hints)
        return None if place is None else self._conversations.get(place)

    def _place(self, request: Request, hints: Hints) -> bytes | None:
        """Return a name for the conversation of a request, None when it may stand alone.

        Without a session id a tool loop is known by what the user asked, which stands unchanged in
        each of its turns. No text is kept, but a digest that says nothing outside this process.
        """
        prompt = request.prompt
        said = hints.session_id or (f"{prompt.system}\0{prompt.text}" if prompt.tools else None)
        if said is None:
            return None
        whole = f"{request.principal.key_id}\0{said}".encode("utf-8", "surrogatepass")
        return blake2b(whole, digest_size=16, key=self._secret).digest()


def sources_of(text: Vector, hints: Hints, remembered: Remembered | None) -> Sources:
    """Return what the task was told from, as it is kept."""
    declared = hints.task_type is not None
    if remembered is None or not remembered.history.requests:
        return Sources(as_bytes(text), declared)
    history, trust = remembered.history, remembered.recalled.trust
    return Sources(as_bytes(text), declared, history.requests, trust, as_bytes(history.counts))


def _put(into: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    into[key] = value
    into.move_to_end(key)
    if len(into) > CONVERSATIONS:
        into.popitem(last=False)


def _one_in_32(request_id: int) -> bool:
    # Fibonacci hashing: a lot that need not be a good one, on every request's way.
    return (request_id * 0x9E3779B97F4A7C15 & _MASK) >> 59 == 0


def lots(request_id: int) -> tuple[float, float]:
    """Return two numbers in [0, 1) that follow from a request's id alone (SplitMix64)."""
    return lot_of(request_id, 0), lot_of(request_id, 1)


def lot_of(request_id: int, number: int) -> float:
    """Return one of sixteen numbers in [0, 1) that a request's id alone decides (SplitMix64)."""
    seed = request_id + number
    state = (seed * 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((state ^ (state >> 31)) >> 11) / (1 << 53)
