"""A streamed answer from an upstream: each event checked and brought into shape.

Most events of a stream differ in one string only. After one such event has been read in full, the
bytes around that string are remembered, and events that match them skip the JSON parser; anything
else is read in full again. Both ways give the same bytes (see tests/property/test_stream.py).
"""

import logging
from typing import Any

from sophia.adapters.upstreams import shapes
from sophia.core.calls import Call, Piece
from sophia.core.failures import FailureKind, UpstreamFailure

log = logging.getLogger("sophia.upstreams")

_CONTENT = b'"content":"'


class _Template:
    """The bytes around the text of a content delta, as they come and as they leave."""

    __slots__ = ("after", "after_out", "before", "before_out", "size")

    def __init__(self, before: bytes, after: bytes, before_out: bytes, after_out: bytes) -> None:
        self.before = before
        self.after = after
        self.before_out = before_out
        self.after_out = after_out
        self.size = len(before) + len(after)

    def fill(self, payload: bytes) -> tuple[bytes, int] | None:
        """Return the event to send and its characters of text, or None when it does not match."""
        if not (payload.startswith(self.before) and payload.endswith(self.after)):
            return None
        text = payload[len(self.before) : -len(self.after)]
        if len(payload) <= self.size or b'"' in text or b"\\" in text:
            return None
        try:
            read = text.decode()
        except UnicodeDecodeError:
            return None
        if not read.isprintable():
            return None
        return self.before_out + text + self.after_out, len(read)


class ChunkReader:
    """Turns the events of one stream into pieces; `now` is in Unix seconds."""

    def __init__(self, call: Call, provider: str, now: int) -> None:
        self._call = call
        self._chat = call.endpoint == "chat/completions"
        self._id = call.request_id
        self._created = now
        self._model = call.model
        self._provider = provider
        self._choices = call.choices
        self._begun: set[int] = set()
        self._roles: set[int] = set()
        self._ended: set[int] = set()
        self._tools: dict[tuple[int, str], int] = {}
        self._template: _Template | None = None
        self.finished: str | None = None
        self.done = False
        self.malformed = 0
        self.failure: UpstreamFailure | None = None
        self._spoken = False

    @property
    def complete(self) -> bool:
        """Whether every choice has told its end: those asked for, or with `[DONE]` those begun."""
        told = len(self._ended) >= self._choices or (self.done and bool(self._ended))
        return told and self._begun <= self._ended

    def read(self, payloads: list[bytes]) -> Piece:
        """Return what `payloads` say. Raises UpstreamFailure for an in-band error.

        Once content was given, what comes before an error is given first: `failure` is the error.
        """
        piece = Piece([])
        for payload in payloads:
            template = self._template
            if template is not None and (filled := template.fill(payload)) is not None:
                piece.chunks.append(filled[0])
                piece.text_chars += filled[1]
                piece.content = True
            elif payload == b"[DONE]":
                self.done = True
            elif payload:
                try:
                    self._full(payload, piece)
                except UpstreamFailure as failure:
                    if not (self._spoken and piece.chunks):
                        raise
                    self.failure = failure
                    break
        self._spoken = self._spoken or piece.content
        return piece

    def _full(self, payload: bytes, piece: Piece) -> None:
        try:
            chunk = shapes.read(payload)
        except UpstreamFailure:
            # One broken event is noise on the line; after a second the stream is not trusted.
            self.malformed += 1
            if self.malformed > 1:
                raise
            log.warning("%s: left a malformed event out of %s", self._model, self._call.request_id)
            return
        if chunk.get("error") is not None:
            raise shapes.failure(chunk["error"], FailureKind.IN_BAND)
        if "usage" in chunk:
            reported = shapes.usage(chunk.pop("usage"))
            piece.usage = reported or piece.usage
        self._head(chunk)
        piece.id, piece.model, piece.provider = self._id, self._model, self._provider
        piece.created = self._created
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return
        content, chars, met = False, 0, len(self._roles)
        hollow = True
        for position, choice in enumerate(choices):
            if not isinstance(choice, dict):
                raise UpstreamFailure(FailureKind.MALFORMED, "a choice of a chunk is no object")
            carried, length = self._choice(choice, position)
            content, chars = content or carried, chars + length
            hollow = self._repeats(choice) and not carried and hollow
        if hollow:
            return
        sent = shapes.encode(chunk)
        piece.chunks.append(sent)
        piece.content = piece.content or content
        piece.text_chars += chars
        piece.finish_reason = self.finished
        # The first delta of a choice may have been given a role that the next ones must not repeat.
        if content and len(choices) == 1 and self._chat and met == len(self._roles):
            self._template = _learn(payload, sent, choices[0])

    def _head(self, chunk: dict[str, Any]) -> None:
        if type(chunk.get("id")) is str:
            self._id = chunk["id"]
        created = chunk.get("created")
        if type(created) in (int, float):
            self._created = int(created)  # type: ignore[arg-type]
        if type(chunk.get("model")) is str and chunk["model"]:
            self._model = chunk["model"]
        if type(chunk.get("provider")) is str:
            self._provider = chunk["provider"]
        chunk["id"] = self._id
        chunk["object"] = "chat.completion.chunk" if self._chat else "text_completion"
        chunk["created"] = self._created
        chunk["model"] = self._model
        chunk["provider"] = self._provider
        if chunk.get("system_fingerprint", "") is None:
            del chunk["system_fingerprint"]

    def _choice(self, choice: dict[str, Any], position: int) -> tuple[bool, int]:
        if type(choice.get("index")) is not int:
            choice["index"] = position
        self._begun.add(choice["index"])
        reason = shapes.finish(choice)
        if reason == "error" or choice.get("error") is not None:
            raise shapes.failure(
                choice.get("error") or "the provider stopped with an error", FailureKind.IN_BAND
            )
        self.finished = reason or self.finished
        if not self._chat:
            text = choice.get("text")
            choice["text"] = text = text if isinstance(text, str) else ""
            choice.setdefault("logprobs", None)
            return bool(text), len(text)
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = choice["delta"] = {}
        if choice["index"] not in self._roles:
            self._roles.add(choice["index"])
            delta = choice["delta"] = {"role": "assistant", **delta}
        if not isinstance(delta.get("role", ""), str):
            delta["role"] = "assistant"
        shapes.tidy_message(delta)
        if delta.get("tool_calls"):
            self._number_tools(choice["index"], delta)
        return shapes.has_content(delta), shapes.text_length(delta)

    def _repeats(self, choice: dict[str, Any]) -> bool:
        """Say whether a choice comes after its own end with nothing new."""
        index = choice["index"]
        if index in self._ended:
            return choice["finish_reason"] is not None or not any(choice.get("delta", {}).values())
        if choice["finish_reason"] is not None:
            self._ended.add(index)
        return False

    def _number_tools(self, choice: int, delta: dict[str, Any]) -> None:
        calls = [call for call in delta["tool_calls"] if isinstance(call, dict)]
        delta["tool_calls"] = calls
        for call in calls:
            name = call.get("id")
            if type(call.get("index")) is not int:
                known = [slot for (owner, _), slot in self._tools.items() if owner == choice]
                fresh = isinstance(name, str) and (choice, name) not in self._tools
                last = max(known, default=-1)
                call["index"] = last + 1 if fresh or last < 0 else last
            if isinstance(name, str) and name:
                self._tools[(choice, name)] = call["index"]
                call.setdefault("type", "function")


def _learn(payload: bytes, sent: bytes, choice: dict[str, Any]) -> _Template | None:
    text = choice["delta"].get("content")
    if not isinstance(text, str) or not text or choice["finish_reason"] is not None:
        return None
    if payload.count(_CONTENT) != 1 or sent.count(_CONTENT) != 1:
        return None
    halves = []
    for whole in (payload, sent):
        start = whole.index(_CONTENT) + len(_CONTENT)
        end = whole.find(b'"', start)
        if b"\\" in whole[start:end] or end < 0:
            return None
        halves += [whole[:start], whole[end:]]
    if payload[len(halves[0]) : -len(halves[1])].decode() != text:
        return None
    return _Template(halves[0], halves[1], halves[2], halves[3])
