"""Which models are able to serve a request, and one sentence for each that is not."""

from collections.abc import Collection

from msgspec import Struct

from sophia.catalogue.model import Model
from sophia.routing.nouns import Excluded, Features, Hints, Prompt

_TEXT = frozenset({"text"})


class Needs(Struct, frozen=True):
    """What a request demands of any model, worked out once per request.

    `inputs` are modalities, `max_tokens` the answer length asked for, `today` an ISO date.
    `structured` is "" or the parameter that carries the demand.
    """

    inputs: frozenset[str]
    tools: bool
    structured: str
    logprobs: bool
    max_tokens: int | None
    max_latency_ms: int | None
    priced: bool
    today: str
    allowed: frozenset[str] | None = None
    unhealthy: Collection[str] = ()
    kind: str = "chat"
    named: bool = False


def needs_of(  # noqa: PLR0913 - where the facts of a request come together
    prompt: Prompt,
    hints: Hints,
    today: str,
    *,
    priced: bool,
    allowed: frozenset[str] | None = None,
    unhealthy: Collection[str] = (),
    kind: str = "chat",
    named: bool = False,
) -> Needs:
    """Return the needs of a request; `priced` demands a known price, because a purse must hold.

    `named` says that the caller named the model: then only a prompt that is surely too long is one.
    """
    inputs = _TEXT
    if prompt.images or prompt.files or prompt.audio:
        counted = (("image", prompt.images), ("file", prompt.files), ("audio", prompt.audio))
        inputs = frozenset({"text", *(name for name, count in counted if count)})
    structured = ""
    if prompt.schema:
        structured = "structured_outputs"
    elif prompt.json_object:
        structured = "response_format"
    return Needs(
        inputs,
        prompt.tools > 0,
        structured,
        prompt.logprobs,
        prompt.max_tokens,
        hints.max_latency_ms,
        priced,
        today,
        allowed,
        unhealthy,
        kind,
        named,
    )


def able(model: Model, features: Features, needs: Needs) -> Excluded | None:
    """Return None when `model` can serve the request, else why it cannot."""
    if model.kind != needs.kind:
        return Excluded(
            model.id, f"It is a model for {model.kind}, not for {needs.kind}.", "wrong_kind"
        )
    if needs.allowed is not None and model.id not in needs.allowed:
        return Excluded(model.id, "This key may not use it.", "not_allowed")
    if model.id in needs.unhealthy:
        return Excluded(model.id, "It has failed too often just now.", "unhealthy")
    if model.expires is not None and model.expires <= needs.today:
        return Excluded(model.id, f"It was retired on {model.expires}.", "expired")
    if needs.priced and not model.prices.known:
        return Excluded(
            model.id, "Its price is not known, so no budget can cover it.", "unknown_price"
        )
    return _fits(model, features, needs) or _offers(model, needs)


def _fits(model: Model, features: Features, needs: Needs) -> Excluded | None:
    if needs.kind != "chat":
        return None
    answer = needs.max_tokens or features.output_tokens
    if model.max_output_tokens is not None and answer > model.max_output_tokens:
        answer = model.max_output_tokens
    wanted = features.prompt_tokens * 3 // 4 if needs.named else features.prompt_tokens + answer
    if wanted > model.context_length:
        cause = f"About {wanted:,} tokens do not fit into its context of {model.context_length:,}."
        return Excluded(model.id, cause, "context_length_exceeded")
    limit = needs.max_latency_ms
    if limit is not None and model.profile is not None and model.profile.latency_ms > limit:
        usual = model.profile.latency_ms
        cause = f"It starts to answer after about {usual} ms, over the {limit} ms asked for."
        return Excluded(model.id, cause, "too_slow")
    return None


def _offers(model: Model, needs: Needs) -> Excluded | None:
    if needs.kind == "chat" and not needs.inputs <= model.input_modalities:
        missing = ", ".join(sorted(needs.inputs - model.input_modalities))
        return Excluded(model.id, f"It does not take {missing} input.", "unsupported_modality")
    if needs.tools and not model.can("tools"):
        return Excluded(model.id, "It cannot call tools.", "unsupported_tools")
    if needs.structured and not (model.can("structured_outputs") or model.can("response_format")):
        return Excluded(
            model.id, "It cannot be held to a response format.", "unsupported_response_format"
        )
    if needs.logprobs and not model.can("logprobs"):
        return Excluded(model.id, "It does not return logprobs.", "unsupported_logprobs")
    return None
