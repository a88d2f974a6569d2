"""A streamed answer from an upstream: each event checked and normalised to OpenRouter's shape.

Most events of a stream differ in one string only. After one such event has been read in full, the
bytes around that string are remembered, and events that match them skip the JSON parser; all others
are read in full again. Both paths give the same bytes (see tests/property/test_stream.py).
"""

import logging
from dataclasses import dataclass
from typing import Any

from sophia.adapters.upstreams import shapes
from sophia.adapters.upstreams.errors import find_error, parse_failure
from sophia.adapters.upstreams.finish_reasons import normalize_finish_reason, raise_choice_error
from sophia.adapters.upstreams.json_text import (
    MAX_PARTS,
    check_parts,
    decode_object,
    encode_repaired,
    join_surrogates,
    split_half_character,
)
from sophia.adapters.upstreams.tool_calls import new_indexes
from sophia.core.calls import ChunkBatch, UpstreamCall
from sophia.core.failures import FailureKind, UpstreamFailure

log = logging.getLogger("sophia.upstreams")

_CONTENT_KEY = b'"content":"'


@dataclass(slots=True)
class _DeltaTemplate:
    """The bytes around the text of a content delta, as received and as sent."""

    before: bytes
    after: bytes
    before_out: bytes
    after_out: bytes

    def fill(self, payload: bytes) -> tuple[bytes, int] | None:
        """Return the event to send and its bytes of text, or None when it does not match."""
        before, after = self.before, self.after
        if not (payload.startswith(before) and payload.endswith(after)):
            return None
        encoded = payload[len(before) : -len(after)]
        if not encoded or b'"' in encoded or b"\\" in encoded:
            return None
        try:
            text = encoded.decode()
        except UnicodeDecodeError:
            return None
        if not text.isprintable():
            return None
        return self.before_out + encoded + self.after_out, len(encoded)


class ChunkReader:
    """Turns the events of one stream into batches of chunks; `now` is in Unix seconds."""

    def __init__(self, call: UpstreamCall, provider: str, now: int) -> None:
        self._chat = call.endpoint == "chat/completions"
        self._envelope: dict[str, Any] = {
            "id": call.request_id,
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": now,
            "model": call.model,
            "provider": provider,
        }
        self._request_id = call.request_id
        self._choice_count = call.choices
        self._has_logprobs = "logprobs" in call.fields
        self._started_choices: set[int] = set()
        self._choices_with_role: set[int] = set()
        # The last finish reason of each choice; a choice may go on after an early one.
        self._reasons: dict[int, str] = {}
        self._tool_calls = new_indexes(call.request_id)
        # The first half of a character, whose second half is in the next delta of that text.
        self._halves: dict[tuple[int, str], str] = {}
        self._template: _DeltaTemplate | None = None
        self.finish_reason: str | None = None
        self.reasons_are_early = False
        self._went_on = False
        # The last content came with a finish reason, and after another one that ended nothing.
        self.end_is_doubtful = False
        self.done = False
        self.malformed = 0
        # Those of them that another event came after.
        self._left_out = 0
        self._has_calls = False
        self.failure: UpstreamFailure | None = None
        self._has_content = False

    @property
    def complete(self) -> bool:
        """Whether every choice has ended: those requested, or after `[DONE]` those started."""
        finished = self._reasons.keys()
        enough = len(finished) >= self._choice_count or (self.done and bool(finished))
        return enough and self._started_choices <= finished

    @property
    def left_out(self) -> int:
        """The number of malformed events inside the answer so far."""
        return self.malformed if self.complete else self._left_out

    def end(self) -> None:
        """Take the stream as ended, with the one choice that it had."""
        self.done = True
        self._started_choices.add(0)
        self._reasons[0] = "stop"

    def read(self, payloads: list[bytes]) -> ChunkBatch:
        """Return the chunks of `payloads`. Raises UpstreamFailure for an in-band error.

        After content has been returned, chunks before an error are returned first, and the error
        is in `failure`.
        """
        batch, size, covered = ChunkBatch(chunks=[]), 0, 0
        for payload in payloads:
            template = self._template
            if template is not None and (filled := template.fill(payload)) is not None:
                batch.chunks.append(filled[0])
                size += filled[1]
            elif payload == b"[DONE]":
                self.done = True
            elif payload:
                usage = batch.usage
                self._read_full(payload, batch)
                if batch.usage is not usage:
                    covered = batch.text_bytes + size
                if self.failure is not None:
                    break
        if size:
            batch.text_bytes += size
            batch.has_content = True
        if batch.usage is not None:
            batch.uncovered_bytes = batch.text_bytes - covered
        if self.failure is not None and not (self._has_content and batch.chunks):
            self.failure.received = batch
            raise self.failure
        self._has_content = self._has_content or batch.has_content
        return batch

    def _read_full(self, payload: bytes, batch: ChunkBatch) -> None:
        chunk = None
        try:
            chunk = self._decode(payload)
            if chunk is None:
                # The next event is read in full, so that this one counts as left out.
                self._template = None
                return
            self._left_out = self.malformed
            if "usage" in chunk:
                reported = shapes.parse_usage(chunk.pop("usage"))
                batch.usage = reported or batch.usage
            if (error := find_error(chunk)) is not None:
                raise parse_failure(error, FailureKind.IN_BAND)
            self._fill_envelope(chunk, batch)
            choices = chunk.get("choices")
            if isinstance(choices, list) and choices:
                self._read_choices(payload, chunk, choices, batch)
        except UpstreamFailure as failure:
            batch.text_bytes += shapes.measure_choices(chunk or {})
            # Once every choice has ended, nothing is taken from the answer.
            if not self.complete or self.reasons_are_early:
                self.failure = failure

    def _read_choices(
        self, payload: bytes, chunk: dict[str, Any], choices: list[Any], batch: ChunkBatch
    ) -> None:
        shapes.check_choice_count(len(choices), self._choice_count)
        has_content, size, roles = False, 0, len(self._choices_with_role)
        is_repetition = True
        for position, choice in enumerate(choices):
            if not isinstance(choice, dict):
                raise UpstreamFailure(FailureKind.MALFORMED, "a choice of a chunk is no object")
            carries, length = self._normalise_choice(choice, position)
            has_content, size = has_content or carries, size + length
            is_repetition = self._is_repeated_end(choice, carries=carries) and is_repetition
        shapes.check_choice_count(len(self._started_choices), self._choice_count)
        if is_repetition:
            return
        # The first delta of a choice may have got a role that the next ones must not repeat.
        is_alone = len(choices) == 1 and roles == len(self._choices_with_role)
        encoded = encode_repaired(chunk)
        batch.chunks.append(encoded)
        batch.has_content = batch.has_content or has_content
        batch.text_bytes += size
        batch.finish_reason = self.finish_reason
        if self._halves:
            self._template = None
        elif has_content and is_alone and self._chat:
            self._template = _build_template(payload, encoded, choices[0])

    def _decode(self, payload: bytes) -> dict[str, Any] | None:
        """Return the object of an event, None for one that is malformed.

        Raises UpstreamFailure for a second malformed event, and for one among tool calls.
        """
        try:
            if len(payload) > MAX_PARTS and not self._has_logprobs:
                check_parts(payload)
            chunk = decode_object(payload)
        except UpstreamFailure as failure:
            # One broken event is tolerated; with a second one the stream is not trusted. A program
            # would run a call, whatever its arguments have lost.
            self.malformed += 1
            if self.malformed > 1 or self._has_calls or failure.kind is FailureKind.TOO_LARGE:
                raise
            model = self._envelope["model"]
            log.warning("%r: left a malformed event out of %s", model, self._request_id)
            return None
        return chunk

    def _fill_envelope(self, chunk: dict[str, Any], batch: ChunkBatch) -> None:
        envelope = self._envelope
        for name in ("id", "model", "provider"):
            value = chunk.get(name)
            if type(value) is str and (value or name != "model"):
                envelope[name] = value
        created = shapes.parse_created(chunk.get("created"))
        if created is not None:
            envelope["created"] = created
        chunk.update(envelope)
        if chunk.get("system_fingerprint", "") is None:
            del chunk["system_fingerprint"]
        batch.id, batch.model = envelope["id"], envelope["model"]
        batch.provider, batch.created = envelope["provider"], envelope["created"]

    def _normalise_choice(self, choice: dict[str, Any], position: int) -> tuple[bool, int]:
        if type(choice.get("index")) is not int:
            choice["index"] = position
        index = choice["index"]
        self._started_choices.add(index)
        reason = normalize_finish_reason(choice)
        raise_choice_error(choice)
        if not self._chat:
            text = choice.get("text")
            choice["text"] = text = text if isinstance(text, str) else ""
            choice.setdefault("logprobs", None)
            self.finish_reason = reason or self.finish_reason
            return bool(text), shapes.count_bytes(text)
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = choice["delta"] = {}
        if index not in self._choices_with_role:
            self._choices_with_role.add(index)
            delta = choice["delta"] = {"role": "assistant", **delta}
        if not isinstance(delta.get("role", ""), str):
            delta["role"] = "assistant"
        shapes.repair_message(delta)
        self._join_halves(index, delta)
        if delta.get("tool_calls"):
            self._tool_calls[index].number(delta)
            self._has_calls = True
        elif delta.get("function_call"):
            self._has_calls = True
        if reason == "stop" and index in self._tool_calls:
            choice.setdefault("native_finish_reason", reason)
            choice["finish_reason"] = reason = "tool_calls"
        self.finish_reason = reason or self.finish_reason
        return shapes.measure_content(delta)

    def _join_halves(self, index: int, delta: dict[str, Any]) -> None:
        """Join characters that are split over two deltas: a high and a low surrogate."""
        for key in ("content", "reasoning"):
            text = delta.get(key)
            if not isinstance(text, str) or not text:
                continue
            if half := self._halves.pop((index, key), ""):
                text = half + text
            elif text.isascii():
                continue
            text, half = split_half_character(text)
            if half:
                self._halves[index, key] = half
            delta[key] = join_surrogates(text)

    def _is_repeated_end(self, choice: dict[str, Any], *, carries: bool) -> bool:
        """Return whether a choice repeats its own end and says nothing new."""
        index, reason = choice["index"], choice["finish_reason"]
        before = self._reasons.get(index)
        self._went_on = self._went_on or (carries and before is not None)
        if reason is not None:
            self.end_is_doubtful = carries and self._went_on
        if before is not None and not carries:
            if reason in (None, before):
                return reason is not None or not any(choice.get("delta", {}).values())
        elif before is not None:
            # It went on after a reason, so that reasons of this server end nothing yet.
            self.reasons_are_early = True
            del self._reasons[index]
        if reason is not None:
            self._reasons[index] = reason
            # What comes now is read in full: it may go on after an early reason.
            self._template = None
            # With content in the same event more may follow.
            self.reasons_are_early = self.reasons_are_early or carries
        return False


def _build_template(
    payload: bytes, encoded: bytes, choice: dict[str, Any]
) -> _DeltaTemplate | None:
    text = choice["delta"].get("content")
    if not isinstance(text, str) or not text or choice["finish_reason"] is not None:
        return None
    if payload.count(_CONTENT_KEY) != 1 or encoded.count(_CONTENT_KEY) != 1:
        return None
    halves = []
    for chunk in (payload, encoded):
        start = chunk.index(_CONTENT_KEY) + len(_CONTENT_KEY)
        end = chunk.find(b'"', start)
        if b"\\" in chunk[start:end] or end < 0:
            return None
        halves += [chunk[:start], chunk[end:]]
    before, after, before_out, after_out = halves
    if payload[len(before) : -len(after)].decode() != text:
        return None
    return _DeltaTemplate(before, after, before_out, after_out)
