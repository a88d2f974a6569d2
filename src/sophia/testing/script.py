"""Fault scripts: what a model answers next, and what goes wrong while it does."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

Raw = bytes | tuple[Literal["sleep"], float] | Literal["rst", "fin", "half_close"]
ANY_MODEL = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """The part of a step that JSON can say; `Step` explains the fields."""

    no_answer: Literal["close", "reset", "hang"] | None = None
    dribble: int | None = None
    delay: float = 0.0

    status: int = 200
    error_type: str | None = None
    message: str = "Provider returned error"
    metadata: Mapping[str, object] = field(default_factory=dict)
    availability: Mapping[str, object] | None = None
    retry_after: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_length: int | None = None

    text: str | None = None
    reasoning: str | None = None
    tool_arguments: str | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    drop: Sequence[str] = ()
    extra: Mapping[str, object] = field(default_factory=dict)
    usage: Mapping[str, object] = field(default_factory=dict)
    no_usage: bool = False

    first_delay: float = 0.0
    chunk_delay: float = 0.0
    cut_after: int | None = None
    reset_after: int | None = None
    stall_after: int | None = None
    comments_after: int | None = None
    comment_every: float = 0.05
    malformed_at: int | None = None
    error_at: int | None = None
    error_choices: bool = True
    bad_chunk_at: int | None = None
    double_finish: bool = False
    usage_choice: bool = False
    no_done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Manner):
    """One answer. Every field that is left alone behaves as OpenRouter does on a good day.

    Times are real seconds. `k` in the `*_after` and `*_at` fields counts the content-bearing
    events of a stream (text, reasoning and tool-call deltas) sent before; for a whole answer it
    counts bytes of the body, and only `cut_after`, `reset_after` and `stall_after` apply.

    Whole exchange:
        no_answer: instead of an answer, close or reset the connection, or say nothing for ever.
        raw: exactly these bytes, sleeps and socket operations, then the connection ends.
        dribble: write so many bytes at a time.
        delay: wait before the headers.
    Errors and bodies:
        status, error_type, message, metadata, availability: from 400 on, an OpenRouter error.
        retry_after: the `Retry-After` header as it should stand.
        headers: more headers; they replace those of the same name.
        body: these bytes, text or JSON in place of the answer, whatever the status.
        leading: bytes before a whole answer's body (OpenRouter's keep-alive newlines).
        content_length: a lie about the length of a whole answer.
    What is said:
        text, reasoning, tool_arguments: in place of what the sandbox would say.
        finish_reason, native_finish_reason: in place of the true one.
        drop: fields to leave out everywhere, as `provider` or `choices.finish_reason`.
        extra: fields to set at the top of the answer and of each chunk; `{"choices": None}` works.
        usage: fields to set in `usage`. The bill keeps to the truth.
        no_usage: leave the usage out.
    Streams:
        first_delay: wait between the role-only chunk and the first content.
        chunk_delay: wait before each content chunk after the first.
        cut_after: end of file after k events, without finish_reason or final chunk.
        reset_after: TCP reset after k events.
        stall_after: say nothing more after k events, for ever.
        comments_after: only keep-alive comments after k events, one each `comment_every` seconds.
        malformed_at: an event that is not JSON before event k.
        error_at: an error chunk in place of event k, then the end; `error_choices` adds the choice
            with `finish_reason: "error"`. `status`, below 400 here, is replaced by 502 as its code.
        bad_chunk_at: a chunk size that is no number in place of event k.
        double_finish: the finishing chunk twice.
        usage_choice: the usage chunk carries one empty choice, as before March 2026.
        no_done: leave `data: [DONE]` out.
    """

    raw: Sequence[Raw] | None = None
    body: bytes | str | Mapping[str, object] | None = None
    leading: bytes = b""

    @property
    def refuses(self) -> bool:
        """Whether the answer is an error status, which lets OpenRouter try the next of `models`."""
        return self.status >= 400 and self.error_at is None


GOOD = Step()


@dataclass(slots=True)
class _Scene:
    steps: tuple[Step, ...]
    times: int | None
    at: int = 0

    def next(self) -> Step:
        step = self.steps[self.at % len(self.steps)]
        self.at += 1
        return step

    @property
    def over(self) -> bool:
        return self.times is not None and self.at >= self.times * len(self.steps)


class Script:
    """A queue of steps for each model; that of `*` serves models with none of their own."""

    def __init__(self) -> None:
        self._scenes: defaultdict[str, deque[_Scene]] = defaultdict(deque)

    def add(self, model: str, *steps: Step, times: int | None = 1) -> None:
        """Let `model` play `steps` in order, `times` times over, None for ever.

        Raises:
            ValueError: there are no steps, or `times` is below 1.
        """
        if not steps or (times is not None and times < 1):
            raise ValueError("a script needs at least one step, played at least once")
        self._scenes[model].append(_Scene(steps, times))

    def clear(self, model: str | None = None) -> None:
        """Forget the steps of `model`, by default of all."""
        if model is None:
            self._scenes.clear()
        else:
            self._scenes.pop(model, None)

    def next(self, model: str) -> Step:
        """Take the next step of `model`; without any, the answer is a good one."""
        for name in (model, ANY_MODEL):
            if scenes := self._scenes.get(name):
                step = scenes[0].next()
                if scenes[0].over:
                    scenes.popleft()
                return step
        return GOOD

    def next_page(self, path: str) -> Step:
        """Take the next step of a GET of `path`, which the queue of `*` does not serve."""
        return self.next(path) if self._scenes.get(path) else GOOD


def step_from_json(body: object) -> Step:
    """Read a step from decoded JSON.

    In `raw`, the words rst, fin and half_close are operations, `["sleep", seconds]` waits, and
    any other text is sent as it is, one byte for each character, as is `leading`.

    Raises:
        ValueError: a field is unknown or of the wrong type.
    """
    if not isinstance(body, dict):
        raise ValueError("a step is a JSON object")
    if unknown := sorted(set(body) - set(Step.__dataclass_fields__)):
        raise ValueError(f"a step has no field {unknown[0]!r}")
    manner = {name: value for name, value in body.items() if name in Manner.__dataclass_fields__}
    try:
        msgspec.convert(manner, Manner)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    raw, override, leading = body.get("raw"), body.get("body"), body.get("leading", "")
    if not isinstance(override, (str, dict, type(None))) or not isinstance(leading, str):
        raise ValueError("body is text or an object, leading is text")
    if not isinstance(raw, (list, type(None))):
        raise ValueError("raw is a list")
    operations = None if raw is None else tuple(map(_raw_from_json, raw))
    return Step(**manner, raw=operations, body=override, leading=leading.encode("latin-1"))


def _raw_from_json(item: object) -> Raw:
    match item:
        case "rst" | "fin" | "half_close":
            return item
        case str():
            return item.encode("latin-1")
        case ["sleep", (int() | float()) as seconds]:
            return ("sleep", float(seconds))
        case _:
            raise ValueError(f"{item!r} is not bytes, a sleep or a socket operation")
