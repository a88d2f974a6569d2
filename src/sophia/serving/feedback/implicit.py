"""Implicit feedback: retries, abandoned streams, and answers that are unusable.

Each signal is weak, and it is recorded in both directions: with bad signals alone, the models that
answer most would look worst. So from the first bad signal of a kind on, a key's good ones of that
kind are recorded too; above the rate limit both are dropped alike.
"""

from hashlib import blake2b
from itertools import islice
from secrets import token_bytes
from typing import NamedTuple

from msgspec import DecodeError, Raw, Struct

from sophia.core.bounded import BoundedDict
from sophia.core.ports import Clock
from sophia.routing.types import Prompt
from sophia.serving.attempts.choices import parse_choices, parse_json
from sophia.serving.attempts.observer import AnswerEnd, AnswerObserver
from sophia.serving.feedback.queue import FeedbackQueue
from sophia.serving.request import Request

RETRY_WINDOW_SECONDS = 300.0
MAX_TRACKED = 10_000
_RATE_PER_SECOND, _BURST = 0.2, 20.0
"""Signals recorded of a key; ten times as many of all keys together."""
_MAX_EXPIRED_PER_REQUEST = 16
_MAX_RETRIES = 2
"""A caller that sends the same more often is taken for a program, not for a dissatisfied user."""
_MIN_REPEAT_CHARS = 20
"""Length from which a turn that comes again later in a conversation counts as the same question."""


class _PreviousAnswer(Struct, kw_only=True):
    """A recent answer; `ended_at` is in monotonic seconds, `repeats` counts earlier retries."""

    request_id: int
    key_id: str
    model: str
    ended_at: float
    turns: int
    chars: int
    repeats: int


class PromptFingerprint(NamedTuple):
    """Digest of a prompt, and how often it was repeated within minutes."""

    digest: bytes
    repeats: int


class _TokenBucket:
    """Rate limit of signals, and the channels that are recorded in both directions."""

    def __init__(self, now: float, keys: int = 1) -> None:
        self.channels: set[str] = set()
        self.tokens = self._burst = _BURST * keys
        self._rate = _RATE_PER_SECOND * keys
        self._at = now

    def has_token(self, now: float) -> bool:
        """Return whether one more signal may be recorded; the caller takes its token."""
        self.tokens = min(self.tokens + (now - self._at) * self._rate, self._burst)
        self._at = now
        return self.tokens >= 1.0


class ImplicitFeedbackDetector:
    """Records signals as feedback; it remembers keyed digests, never a text."""

    def __init__(self, feedback: FeedbackQueue, clock: Clock) -> None:
        self._feedback = feedback
        self._clock = clock
        self._secret = token_bytes(16)
        self._previous: BoundedDict[bytes, _PreviousAnswer] = BoundedDict(MAX_TRACKED + 1)
        self._buckets: BoundedDict[str, _TokenBucket] = BoundedDict(MAX_TRACKED)
        self._global_bucket = _TokenBucket(clock.monotonic(), keys=10)

    def observe_request(self, request: Request) -> PromptFingerprint | None:
        """Record a request; return its fingerprint, None for the turn of a tool loop.

        A repeat within five minutes of its answer is a signal against that answer.
        """
        now = self._clock.monotonic()
        self._expire(now)
        prompt = request.prompt
        if prompt.after_tool_result or not prompt.text:
            return None
        digest, repeats = self._prompt_digest(request), 0
        previous = self._previous.get(digest)
        if previous is not None and now - previous.ended_at > RETRY_WINDOW_SECONDS:
            self._evict(digest)
        elif previous is not None and _is_retry(previous, prompt):
            del self._previous[digest]
            repeats = previous.repeats + 1
            if previous.repeats < _MAX_RETRIES:
                self._record(previous, "retry", 0.0, "asked again")
        return PromptFingerprint(digest, repeats)

    def observe_end(
        self,
        request: Request,
        fingerprint: PromptFingerprint | None,
        observer: AnswerObserver,
        end: AnswerEnd,
    ) -> None:
        """Record the end of an answer that was not checked."""
        answer = _PreviousAnswer(
            request_id=request.id,
            key_id=request.principal.key_id,
            model=end.model,
            ended_at=self._clock.monotonic(),
            turns=request.prompt.turns,
            chars=request.prompt.chars,
            repeats=0 if fingerprint is None else fingerprint.repeats,
        )
        if request.stream and end.complete:
            self._record(answer, "completed", 1.0, "read")
        elif request.stream and end.finish_reason is None:
            self._record(answer, "completed", 0.0, "left")
        if not end.complete:
            return
        problem = _unusable_reason(request.prompt, observer, end)
        self._record(answer, "validator", 0.0 if problem else 1.0, problem or "usable")
        if fingerprint is not None:
            self._previous[fingerprint.digest] = answer
            if len(self._previous) > MAX_TRACKED:
                self._evict(next(iter(self._previous)))

    def _expire(self, now: float) -> None:
        """Evict answers older than the retry window."""
        # A few at a time: after a pause there may be thousands, and a caller waits.
        for digest in list(islice(self._previous, _MAX_EXPIRED_PER_REQUEST)):
            if now - self._previous[digest].ended_at <= RETRY_WINDOW_SECONDS:
                return
            self._evict(digest)

    def _evict(self, digest: bytes) -> None:
        """Forget an answer to a request that was not repeated."""
        previous = self._previous.pop(digest)
        if previous.repeats < _MAX_RETRIES:
            self._record(previous, "retry", 1.0, "not asked again")

    def _record(self, answer: _PreviousAnswer, channel: str, value: float, label: str) -> None:
        now, bucket = self._clock.monotonic(), self._buckets.get(answer.key_id)
        if value and (bucket is None or channel not in bucket.channels):
            return
        if bucket is None:
            bucket = self._buckets[answer.key_id] = _TokenBucket(now)
        bucket.channels.add(channel)
        if not (bucket.has_token(now) and self._global_bucket.has_token(now)):
            return
        bucket.tokens -= 1.0
        self._global_bucket.tokens -= 1.0
        self._feedback.add(
            answer.request_id,
            answer.key_id,
            answer.model,
            channel=channel,
            score=value,
            label=label,
        )

    def _prompt_digest(self, request: Request) -> bytes:
        """Return a keyed digest of a prompt, meaningless outside this process."""
        prompt, user = request.prompt, request.fields.get("user")
        parts = request.principal.key_id, request.hints.session_id or "", prompt.system, prompt.text
        text = "\0".join(parts).encode("utf-8", "surrogatepass")
        digest = blake2b(text, digest_size=16, key=self._secret)
        if isinstance(user, Raw):
            digest.update(memoryview(user))
        return digest.digest()


def _is_retry(previous: _PreviousAnswer, prompt: Prompt) -> bool:
    """Return whether a conversation came again, or its question after the answer."""
    if prompt.turns == previous.turns:
        return prompt.chars == previous.chars
    return prompt.turns == previous.turns + 2 and len(prompt.text) >= _MIN_REPEAT_CHARS


def _unusable_reason(prompt: Prompt, observer: AnswerObserver, end: AnswerEnd) -> str:
    """Return why an answer is unusable for its caller, or an empty string."""
    if end.finish_reason == "length" and (end.clamped or prompt.max_tokens is None):
        return "truncated"
    if end.finish_reason == "content_filter":
        return "filtered"
    if end.finish_reason == "tool_calls" and observer.is_complete:
        return "" if _has_valid_tool_calls(observer) else "tool_call"
    return ""


def _has_valid_tool_calls(observer: AnswerObserver) -> bool:
    try:
        choices = parse_choices(observer.chunks)
    except (DecodeError, RecursionError):
        # Chunks that were passed on unread, such as half a surrogate pair, must not raise here.
        return False
    calls = (call for choice in choices for call in choice.tool_calls)
    return all(isinstance(parse_json(call.arguments or "{}"), dict) for call in calls)
