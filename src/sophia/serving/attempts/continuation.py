"""Continuation of a stream that broke off: another call goes on where the text stopped."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from sophia.core.calls import ChunkBatch
from sophia.core.errors import SophiaError
from sophia.core.failures import FailureKind, UpstreamFailure
from sophia.core.money import TOKENS_PER_PRICE_UNIT
from sophia.routing.types import Attempt
from sophia.serving.attempts.answer import Answer, RequestRecord
from sophia.serving.attempts.failover import run_attempts
from sophia.serving.attempts.overlap import OverlapFilter
from sophia.serving.attempts.reservation import BudgetScope
from sophia.serving.attempts.targets.classifier import describe_failure, is_final
from sophia.serving.request import Request

_CHARS_PER_TOKEN = 4
_TEXT_FIELDS = frozenset(
    ("role", "content", "name", "reasoning", "reasoning_content", "reasoning_details")
)
"""Fields of a delta that has text, and what leads to it, alone."""
_ENDS_OF_TEXT = re.compile(r"[^\w\s,;:-]\s*$|\n\s*$")


class _Choice(Struct, frozen=True):
    delta: dict[str, object] = {}
    index: int = 0


class _Chunk(Struct, frozen=True):
    choices: list[_Choice] = []


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


def can_be_continued(request: Request) -> bool:
    """Return whether a stream is of text alone, so that another call can go on with it."""
    prompt = request.prompt
    return (
        request.stream
        and request.endpoint == "chat/completions"
        and prompt.choice_count == 1
        and not (prompt.tools or prompt.schema or prompt.json_object or prompt.logprobs)
    )


class Continuation:
    """Text that a caller has received of one stream, and the way to go on with it.

    The text so far is sent as the last message of the assistant, which most models take as the
    beginning of their answer; words that the continuation repeats are left out. Never after a
    delta of a tool call or of anything else than text, and never when a part of it was left out.
    """

    def __init__(self, record: RequestRecord, scope: BudgetScope) -> None:
        self._record = record
        self._scope = scope
        self._text = ""
        self._is_text = True
        self._id: str | None = None
        self._filter: OverlapFilter | None = None
        self._last: dict[str, Any] | None = None

    def deliver(self, batch: ChunkBatch) -> ChunkBatch:
        """Return a batch as the caller gets it, and remember its text."""
        if self._filter is not None:
            batch = replace(batch, chunks=self._rewrite(batch.chunks), id=self._id)
        self._id = self._id or batch.id
        for chunk in batch.chunks:
            for choice in _decode_chunk(chunk).choices:
                text = choice.delta.get("content")
                if choice.index == 0 and isinstance(text, str):
                    self._text += text
                elif choice.index or text:
                    self._is_text = False
                others = choice.delta.keys() - _TEXT_FIELDS
                self._is_text &= not any(choice.delta[name] for name in others)
        return batch

    def flush(self) -> ChunkBatch | None:
        """Return the text that was held back at the end of a continuation, if any."""
        if self._filter is None or not (rest := self._filter.flush()) or self._last is None:
            return None
        chunk = {**self._last, "choices": [_text_choice(rest)]}
        return ChunkBatch(chunks=[msgspec.json.encode(chunk)], has_content=True, id=self._id)

    async def resume(self, answer: Answer, failure: UpstreamFailure) -> bool:
        """Let another attempt go on with `answer`; False when that is not possible.

        Raises UpstreamFailure when it was tried in vain; everything is settled then.
        """
        record = self._record
        if not (self._text and self._is_text and record.may_dispatch):
            return False
        is_too_large = failure.kind is FailureKind.TOO_LARGE
        if answer.left_out_events or is_too_large or is_final(failure):
            return False
        record.may_be_complete = _ENDS_OF_TEXT.search(self._text[-200:]) is not None
        record.continued_bytes = len(self._text.encode("utf-8", "replace"))
        attempts = [self._extend(attempt) for attempt in self._list_attempts(answer.model)]
        answer.reject(describe_failure(failure), interrupted=True)
        try:
            other = await run_attempts(
                record, self._scope, attempts, continued_fields=self._build_fields()
            )
        except SophiaError:
            raise failure from None
        if other.running.result.first_content_at is None and not self._is_complete():
            other.reject("empty")
            record.close(502, str(failure.kind))
            raise failure
        answer.take_over(other)
        record.continued.append((other.model, len(self._text)))
        self._filter = OverlapFilter(self._text)
        return True

    def _is_complete(self) -> bool:
        """Return whether a text is complete to which a model had nothing to add, as one before."""
        record = self._record
        return record.may_be_complete or record.outcomes[-1].failure == FailureKind.EMPTY

    def _list_attempts(self, model: str) -> list[Attempt]:
        """Return the planned attempts, those of the model that broke off first."""
        planned = self._record.decision.plan.attempts
        return sorted(planned, key=lambda attempt: attempt.model != model)

    def _extend(self, attempt: Attempt) -> Attempt:
        """Return an attempt that also pays for the text so far as part of its prompt."""
        model = self._record.knowledge.find(attempt.model)
        size = self._record.continued_bytes
        price = 0 if model is None else model.prices.ceiling(size).prompt
        limit = attempt.max_tokens or self._record.request.prompt.max_tokens
        if limit is not None:
            # Wide scripts have about a token for each character.
            chars = len(self._text)
            written = max(chars // _CHARS_PER_TOKEN, (size - chars) // 2)
            limit = max(limit - written, 1)
        added = -(-size * price // TOKENS_PER_PRICE_UNIT)
        margin = 100 + self._record.dependencies.limits.price_margin
        return replace(
            attempt,
            reason=f"It goes on with an answer that broke off after {len(self._text)} characters.",
            expected_nano=attempt.expected_nano + added // _CHARS_PER_TOKEN,
            held_nano=attempt.held_nano + added * margin // 100 + 1,
            max_tokens=limit,
        )

    def _build_fields(self) -> Mapping[str, object]:
        fields = self._record.request.fields
        messages = fields["messages"]
        assert isinstance(messages, Raw), "the fields of a chat are raw JSON"
        given = msgspec.json.decode(messages, type=list[Raw])
        added = Raw(msgspec.json.encode({"role": "assistant", "content": self._text}))
        return {**fields, "messages": [*given, added]}

    def _rewrite(self, chunks: list[bytes]) -> list[bytes]:
        """Return the chunks of a continuation without repeated text, under the first id."""
        assert self._filter is not None, "only a continuation is rewritten"
        found = []
        for raw in chunks:
            chunk = msgspec.json.decode(raw)
            chunk["id"] = self._id
            choice = chunk["choices"][0] if chunk.get("choices") else {}
            delta = choice.setdefault("delta", {})
            delta.pop("role", None)
            if isinstance(text := delta.get("content"), str):
                delta["content"] = self._filter.feed(text)
            if choice.get("finish_reason") is not None:
                delta["content"] = (delta.get("content") or "") + self._filter.flush()
            if any(delta.values()) or choice.get("finish_reason") is not None:
                found.append(msgspec.json.encode(chunk))
            self._last = chunk
        return found


def _text_choice(text: str) -> dict[str, object]:
    return {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
