"""OpenRouter's shapes, as every known client accepts them: answers, chunks and usage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from sophia.testing.script import Step

PROVIDER = "Sandbox"
NANO_PER_USD = 1_000_000_000

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every body of one generation repeats. `created` is in Unix seconds."""

    id: str
    created: int
    model: str
    legacy: bool = False
    fingerprint: str | None = None

    def whole(self, choices: Sequence[Json], usage: Json) -> Json:
        """Return a whole answer; its fingerprint is present even when it is null."""
        body = self._base("text_completion" if self.legacy else "chat.completion")
        body |= {"system_fingerprint": self.fingerprint, "choices": choices, "usage": usage}
        return body

    def chunk(self, choices: Sequence[Json], usage: Json | None = None) -> Json:
        """Return a chunk of a stream; an unknown fingerprint is left out, for strict clients."""
        body = self._base("text_completion" if self.legacy else "chat.completion.chunk")
        if self.fingerprint is not None:
            body["system_fingerprint"] = self.fingerprint
        body["choices"] = choices
        if usage is not None:
            body["usage"] = usage
        return body

    def _base(self, kind: str) -> Json:
        return {
            "id": self.id,
            "provider": PROVIDER,
            "model": self.model,
            "object": kind,
            "created": self.created,
        }


def finish(reason: str | None, step: Step) -> Json:
    """Return the two finish fields of a choice, as the script bends them."""
    if reason is None:
        return {"finish_reason": None, "native_finish_reason": None}
    reason = step.finish_reason or reason
    return {"finish_reason": reason, "native_finish_reason": step.native_finish_reason or reason}


def usage(prompt_tokens: int, completion_tokens: int, reasoning_tokens: int, cost: int) -> Json:
    """Return the usage of a generation; `cost` is in nano-dollars, in the body in US dollars."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "cost": cost / NANO_PER_USD,
        "is_byok": False,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }


def reasoning(text: str) -> Json:
    """Return the reasoning fields of a message or delta."""
    detail = {"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}
    return {"reasoning": text, "reasoning_details": [detail]}


def logprobs(tokens: Sequence[str], top: int) -> Json:
    """Return plausible log probabilities, the same for the same tokens."""
    return {"content": [_logprob(token, top) for token in tokens], "refusal": None}


def _logprob(token: str, top: int) -> Json:
    base = {"token": token, "logprob": -0.05 * (1 + len(token) % 5), "bytes": list(token.encode())}
    others = [{**base, "token": token + "~" * n, "logprob": -0.05 - 1.5 * n} for n in range(1, top)]
    return {**base, "top_logprobs": [base, *others] if top else []}


def bend(body: Json, step: Step) -> Json:
    """Apply what the script changes in every body: fields dropped, fields set, usage lied about."""
    if isinstance(body.get("usage"), dict) and step.usage:
        body["usage"] = {**_table(body["usage"]), **step.usage}
    if step.no_usage:
        body.pop("usage", None)
    for path in step.drop:
        _drop(body, path.split("."))
    body.update(step.extra)
    return body


def event(body: Json) -> bytes:
    """Return `body` as one server-sent event."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _drop(body: object, path: list[str]) -> None:
    if isinstance(body, list):
        for item in body:
            _drop(item, path)
    elif isinstance(body, dict):
        if len(path) == 1:
            body.pop(path[0], None)
        else:
            _drop(body.get(path[0]), path[1:])


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
