"""Fault scripts: the next answers of each model, and the faults in them."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Literal

import msgspec

from sophia.sandbox.api.shapes import JsonObject, as_mapping

RawOperation = bytes | tuple[Literal["sleep"], float] | Literal["rst", "fin", "half_close"]
ANY_MODEL = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonStep:
    """The fields of a step that are plain JSON; `ScriptStep` explains them."""

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
class ScriptStep(JsonStep):
    """One answer. The default of every field is OpenRouter's normal behaviour.

    Times are real seconds. `k` in the `*_after` and `*_at` fields counts the content-bearing
    events of a stream (text, reasoning and tool-call deltas) sent before; for a whole answer it
    counts bytes of the body, and only `cut_after`, `reset_after` and `stall_after` apply.

    Whole exchange:
        no_answer: instead of answering, close or reset the connection, or send nothing for ever.
        raw: exactly these bytes, sleeps and socket operations, then the connection ends.
        dribble: number of bytes written at a time.
        delay: wait before the headers.
    Errors and bodies:
        status, error_type, message, metadata, availability: from 400 on, an OpenRouter error.
        retry_after: the `Retry-After` header, verbatim.
        headers: more headers; they replace those of the same name.
        body: these bytes, text or JSON in place of the answer, whatever the status.
        leading: bytes before the body of a whole answer (OpenRouter's keep-alive newlines).
        content_length: a wrong length of a whole answer.
    Content:
        text, reasoning, tool_arguments: in place of the generated ones.
        finish_reason, native_finish_reason: in place of the true ones.
        drop: fields to leave out everywhere, as `provider` or `choices.finish_reason`.
        extra: fields to set at the top of the answer and of each chunk; `{"choices": None}` works.
        usage: fields to set in `usage`; the bill stays true.
        no_usage: leave the usage out.
    Streams:
        first_delay: wait between the role-only chunk and the first content.
        chunk_delay: wait before each content chunk after the first.
        cut_after: end of file after k events, without finish_reason or final chunk.
        reset_after: TCP reset after k events.
        stall_after: nothing more after k events, for ever.
        comments_after: only keep-alive comments after k events, one each `comment_every` seconds.
        malformed_at: an event that is not JSON before event k.
        error_at: an error chunk in place of event k, then the end; `error_choices` adds the choice
            with `finish_reason: "error"`. Its code is `status`, or 502 for a status below 400.
        bad_chunk_at: a chunk size that is no number in place of event k.
        double_finish: the finishing chunk twice.
        usage_choice: the usage chunk carries one empty choice, as before March 2026.
        no_done: leave `data: [DONE]` out.
    """

    raw: Sequence[RawOperation] | None = None
    body: bytes | str | Mapping[str, object] | None = None
    leading: bytes = b""

    @property
    def is_error(self) -> bool:
        """Whether the answer is an error status, which lets OpenRouter try the next of `models`."""
        return self.status >= 400 and self.error_at is None

    def finish_fields(self, reason: str | None) -> JsonObject:
        """Return the two finish fields of a choice."""
        finish = reason and (self.finish_reason or reason)
        native = reason and (self.native_finish_reason or finish)
        return {"finish_reason": finish, "native_finish_reason": native}

    def override(self, body: JsonObject) -> JsonObject:
        """Change the fields of an answer or chunk as the step demands."""
        if self.usage and (usage := as_mapping(body.get("usage"))):
            body["usage"] = {**usage, **self.usage}
        if self.no_usage:
            body.pop("usage", None)
        for path in self.drop:
            _drop_field(body, path.split("."))
        body.update(self.extra)
        return body


def _drop_field(body: object, path: list[str]) -> None:
    if isinstance(body, list):
        for item in body:
            _drop_field(item, path)
    elif isinstance(body, dict):
        if len(path) == 1:
            body.pop(path[0], None)
        else:
            _drop_field(body.get(path[0]), path[1:])


NORMAL_STEP = ScriptStep()


class UpstreamScript:
    """A queue of steps for each model; the queue of `*` serves models that have none."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, deque[Iterator[ScriptStep]]] = defaultdict(deque)

    def add(self, model: str, *steps: ScriptStep, times: int | None = 1) -> None:
        """Let `model` play `steps` in order, `times` times, or for ever if that is None.

        Raises ValueError if there are no steps or `times` is below 1.
        """
        if not steps or (times is not None and times < 1):
            raise ValueError("a script needs at least one step, played at least once")
        rounds = repeat(steps) if times is None else repeat(steps, times)
        self._queues[model].append(chain.from_iterable(rounds))

    def clear(self, model: str | None = None) -> None:
        """Remove the steps of `model`, by default of all."""
        if model is None:
            self._queues.clear()
        else:
            self._queues.pop(model, None)

    def next(self, *names: str) -> ScriptStep:
        """Take a step from the first of these queues that has one; without any, a normal answer."""
        for queue in (self._queues.get(name, ()) for name in names):
            while queue:
                if step := next(queue[0], None):
                    return step
                queue.popleft()
        return NORMAL_STEP


def parse_script_step(body: object) -> ScriptStep:
    """Read a step from decoded JSON.

    In `raw`, the words rst, fin and half_close are operations, `["sleep", seconds]` waits, and
    any other text is sent as it is, one byte for each character, as is `leading`.

    Raises ValueError if a field is unknown or of the wrong type.
    """
    if not isinstance(body, dict):
        raise ValueError("a step is a JSON object")
    if unknown := sorted(set(body) - set(ScriptStep.__dataclass_fields__)):
        raise ValueError(f"a step has no field {unknown[0]!r}")
    fields = {name: value for name, value in body.items() if name in JsonStep.__dataclass_fields__}
    try:
        msgspec.convert(fields, JsonStep)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    raw, override, leading = body.get("raw"), body.get("body"), body.get("leading", "")
    if not isinstance(override, (str, dict, type(None))) or not isinstance(leading, str):
        raise ValueError("body is text or an object, leading is text")
    if not isinstance(raw, (list, type(None))):
        raise ValueError("raw is a list")
    operations = None if raw is None else tuple(map(_parse_raw, raw))
    return ScriptStep(**fields, raw=operations, body=override, leading=leading.encode("latin-1"))


def _parse_raw(item: object) -> RawOperation:
    match item:
        case "rst" | "fin" | "half_close":
            return item
        case str():
            return item.encode("latin-1")
        case ["sleep", (int() | float()) as seconds]:
            return ("sleep", float(seconds))
        case _:
            raise ValueError(f"{item!r} is not bytes, a sleep or a socket operation")
