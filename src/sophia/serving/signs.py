"""What callers do with an answer without a word: ask again, leave it, or get what nobody can use.

Each sign tells little, and tells it both ways: where only bad news was kept, the models that answer
most would look worst. So from the first bad sign of a kind on, a key's good ones of that kind are
kept, too; and where there are too many, as many of either are left out.
"""

from collections import OrderedDict
from hashlib import blake2b
from itertools import islice
from secrets import token_bytes
from typing import NamedTuple

from msgspec import DecodeError, Raw, Struct

from sophia.core.ids import encode
from sophia.core.ports import Clock
from sophia.core.rows import OWN, Feedback
from sophia.routing.nouns import Prompt
from sophia.serving.checking import Verdicts
from sophia.serving.checks import choices, parse
from sophia.serving.ear import Ear, Ending
from sophia.serving.request import Request

AGAIN_SECONDS = 300.0
KEPT = 10_000
_PER_SECOND, _BURST = 0.2, 20.0
"""Signs that are taken of a key; ten times as many of all keys together."""
_ALL = ""
_AT_ONCE = 16
"""Answers that one request forgets at most."""
_HABIT = 2
"""Who sent the same more often than this is taken for a program, not for somebody unsatisfied."""
_LONG = 20
"""Characters from which on a turn that comes again later in a conversation is the same question."""


class _Former(Struct):
    """An answer that was given lately: to what, when (monotonic seconds), and how often before."""

    request_id: int
    key_id: str
    model: str
    at: float
    turns: int
    chars: int
    times: int


class Turn(NamedTuple):
    """What a caller asked: the name of it, and how often it came before within minutes."""

    place: bytes
    times: int


class _Watch:
    """What is heard of a key: which kinds of signs, and how many more just now."""

    __slots__ = ("_at", "_rate", "_tokens", "open")

    def __init__(self, now: float, rate: float) -> None:
        self.open: set[str] = set()
        self._rate = rate
        self._tokens = _BURST * rate / _PER_SECOND
        self._at = now

    def room(self, now: float) -> bool:
        """Say whether one more sign may be taken."""
        most = _BURST * self._rate / _PER_SECOND
        self._tokens = min(self._tokens + (now - self._at) * self._rate, most)
        self._at = now
        return self._tokens >= 1.0

    def take(self) -> None:
        """Count one more sign."""
        self._tokens -= 1.0


class Signs:
    """Notices signs and keeps them as feedback; no text is remembered, only keyed digests.

    Args:
        verdicts: keeps the signs and has them learned.
        clock: tells how long ago something was.
    """

    def __init__(self, verdicts: Verdicts, clock: Clock) -> None:
        self._verdicts = verdicts
        self._clock = clock
        self._secret = token_bytes(16)
        self._formers: OrderedDict[bytes, _Former] = OrderedDict()
        self._watches: OrderedDict[str, _Watch] = OrderedDict()
        self._all = _Watch(clock.monotonic(), 10 * _PER_SECOND)

    def asked(self, request: Request) -> Turn | None:
        """Notice a request; return its last turn, None when a program and no caller took it.

        One that comes again within five minutes of its answer is a sign against that answer.
        """
        now = self._clock.monotonic()
        self._let_go(now)
        prompt = request.prompt
        if prompt.tool_turn or not prompt.text:
            return None
        place, times = self._place(request), 0
        former = self._formers.get(place)
        if former is not None and now - former.at > AGAIN_SECONDS:
            self._forget(place)
        elif former is not None and _is_again(former, prompt):
            del self._formers[place]
            times = former.times + 1
            if former.times < _HABIT:
                self._say(former, "retry", 0.0, "asked again")
        return Turn(place, times)

    def over(self, request: Request, turn: Turn | None, ear: Ear, ending: Ending) -> None:
        """Notice how an answer ended that no cascade looked at."""
        given = self._former(request, ending.model, turn)
        if request.stream and ending.complete:
            self._say(given, "completed", 1.0, "read")
        elif request.stream and ending.finish is None:
            self._say(given, "completed", 0.0, "left")
        if not ending.complete:
            return
        wrong = _unusable(request.prompt, ear, ending)
        self._say(given, "validator", 0.0 if wrong else 1.0, wrong or "usable")
        if turn is not None:
            self._formers[turn.place] = given
            self._formers.move_to_end(turn.place)
            if len(self._formers) > KEPT:
                self._forget(next(iter(self._formers)))

    def _former(self, request: Request, model: str, turn: Turn | None) -> _Former:
        return _Former(
            request.id,
            request.principal.key_id,
            model,
            self._clock.monotonic(),
            request.prompt.turns,
            request.prompt.chars,
            0 if turn is None else turn.times,
        )

    def _let_go(self, now: float) -> None:
        """Forget answers that were given too long ago: nobody asked for them again."""
        # A few at once: after a pause there may be thousands, and somebody waits.
        for place in list(islice(self._formers, _AT_ONCE)):
            if now - self._formers[place].at <= AGAIN_SECONDS:
                return
            self._forget(place)

    def _forget(self, place: bytes) -> None:
        """Forget an answer that was not asked for again as long as it was remembered."""
        former = self._formers.pop(place)
        if former.times < _HABIT:
            self._say(former, "retry", 1.0, "not asked again")

    def _say(self, given: _Former, channel: str, value: float, label: str) -> None:
        watch = self._watches.get(given.key_id)
        if watch is None and value:
            return
        now = self._clock.monotonic()
        if watch is None:
            watch = self._watches[given.key_id] = _Watch(now, _PER_SECOND)
            if len(self._watches) > KEPT:
                self._watches.popitem(last=False)
        if value and channel not in watch.open:
            return
        watch.open.add(channel)
        if not (watch.room(now) and self._all.room(now)):
            return
        watch.take()
        self._all.take()
        decision, at_ms = encode("dec", given.request_id), int(self._clock.wall() * 1000)
        key = f"{OWN}{decision}:{channel}"
        row = Feedback(
            key, given.request_id, given.key_id, value, label, 0, None, channel, at_ms
        )
        self._verdicts.add(row, given.model)

    def _place(self, request: Request) -> bytes:
        """Return a name for what a caller asks, which says nothing outside this process."""
        prompt, user = request.prompt, request.fields.get("user")
        parts = request.principal.key_id, request.hints.session_id or "", prompt.system, prompt.text
        said = "\0".join(parts)
        digest = blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16, key=self._secret)
        if isinstance(user, Raw):
            digest.update(memoryview(user))
        return digest.digest()


def _is_again(former: _Former, prompt: Prompt) -> bool:
    """Say whether a conversation came once more, or the same question after its answer."""
    if prompt.turns == former.turns:
        return prompt.chars == former.chars
    return prompt.turns == former.turns + 2 and len(prompt.text) >= _LONG


def _unusable(prompt: Prompt, ear: Ear, ending: Ending) -> str:
    """Return why an answer is of no use to whoever called, or nothing."""
    if ending.finish == "length" and (ending.clamped or prompt.max_tokens is None):
        return "truncated"
    if ending.finish == "content_filter":
        return "filtered"
    if ending.finish == "tool_calls" and ear.whole and not _is_read(ear):
        return "tool_call"
    return ""


def _is_read(ear: Ear) -> bool:
    """Say whether the calls of tools that were heard can be read."""
    try:
        return parse(choices(ear.chunks))
    except (DecodeError, RecursionError):
        # What was passed on unread, such as half a surrogate pair, must not end the answer badly.
        return False
