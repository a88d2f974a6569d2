"""Candidates of one request: the models that can serve it, and a sentence for each that cannot."""

from collections.abc import Iterable

from sophia.catalogue.model import Model
from sophia.core.money import format_usd
from sophia.routing.pool import PoolModel
from sophia.routing.quotes import Quote, build_spend_limit, quote_model
from sophia.routing.request import RouteRequest
from sophia.routing.types import ExcludedModel, Prompt

_TEXT = frozenset({"text"})


class Candidates:
    """Quotes of the models that can serve a request, by id; `excluded` holds the others.

    Unhealthy models are excluded while any other is able.
    """

    def __init__(self, request: RouteRequest) -> None:
        prompt, hints, limits = request.prompt, request.hints, request.limits
        self.request = request
        self.quotes: dict[str, Quote] = {}
        self.excluded: dict[str, ExcludedModel] = {}
        self.spend_limit = build_spend_limit(
            limits.per_request_nano, limits.budget_left_nano, hints.max_cost_nano
        )
        media = prompt.images or prompt.files or prompt.audio
        self._input_modalities = _list_input_modalities(prompt) if media else _TEXT
        self._is_plain = self._input_modalities is _TEXT and not (
            prompt.tools or prompt.schema or prompt.json_object or prompt.logprobs
        )
        # A named model is refused only a prompt that is surely too long: the upstream knows best.
        tokens = request.features.prompt_tokens
        self._prompt_tokens = tokens * 3 // 4 if request.named else tokens
        self._answer_tokens = (
            0 if request.named else prompt.max_tokens or request.features.output_tokens
        )
        models = request.named or request.pool.models
        self._unhealthy: dict[str, Quote] = {}
        self._quote_models(self._find_restriction() if hints.models else models)
        if not self.quotes and self._unhealthy:
            self.quotes = self._unhealthy
            for id in self._unhealthy:
                del self.excluded[id]

    def quote_by_name(self, name: str) -> Quote | None:
        """Return the quote of a model by name, if it is able; one outside the pool is added."""
        model = self._find_model(name)
        if model is None:
            return None
        request = self.request
        if not (request.hints.models or model.id in self.quotes or model.id in request.pool.by_id):
            self._quote_models((model,))
        return self.quotes.get(model.id)

    def find_quote_by_role(self, role: str) -> Quote | None:
        """Return the quote of the pool's model with `role`, if it is able."""
        model = self.request.pool.by_role.get(role)
        return None if model is None else self.quotes.get(model.id)

    def rank_by_quality(self) -> list[Quote]:
        """Return all quotes, best expected quality first; models outside the pool go last."""
        quotes, pool = self.quotes, self.request.pool
        ranked = pool.by_quality[self.request.features.task_type]
        order = [quotes[model.id] for model in ranked if model.id in quotes]
        if len(order) < len(quotes):
            order.extend(quote for id, quote in quotes.items() if id not in pool.by_id)
        return order

    def _find_restriction(self) -> list[PoolModel]:
        """Return the models that the caller restricts the choice to."""
        models = []
        for name in self.request.hints.models:
            model = self._find_model(name)
            if model is None:
                cause = "No model of that name is in the catalogue."
                self.excluded[name] = ExcludedModel(name, cause, "model_not_found")
            else:
                models.append(model)
        return models

    def _find_model(self, name: str) -> PoolModel | None:
        by_id = self.request.pool.by_id
        if name in by_id:
            return by_id[name]
        model = self.request.find_model(name)
        return model and by_id.get(model.id, model)

    def _quote_models(self, models: Iterable[PoolModel]) -> None:
        request, limit = self.request, self.spend_limit
        prompt, features, margin = request.prompt, request.features, request.limits.price_margin
        unhealthy = request.unhealthy
        for model in models:
            exclusion = self._check(model.model)
            if exclusion is None:
                quoted = quote_model(model, prompt, features, limit, margin)
                if quoted.held_nano is not None:
                    if not unhealthy or model.id not in unhealthy:
                        self.quotes[model.id] = quoted
                        continue
                    self._unhealthy[model.id] = quoted
                    cause = unhealthy[model.id]
                    self.excluded[model.id] = ExcludedModel(model.id, cause, "unhealthy")
                    continue
                cause = (
                    f"Even a minimal answer may cost {format_usd(quoted.minimal_nano)}, more than "
                    f"{limit.source} ({format_usd(limit.limit_nano or 0)})."
                )
                exclusion = ExcludedModel(model.id, cause, "too_expensive")
            self.excluded[model.id] = exclusion

    def _check(self, model: Model) -> ExcludedModel | None:
        """Return None when `model` can serve the request, else why it cannot."""
        request = self.request
        kind = request.model_kind
        if model.kind != kind:
            cause = f"It is a model for {model.kind}, not for {kind}."
            return ExcludedModel(model.id, cause, "wrong_kind")
        if model.expires_on is not None and model.expires_on <= request.today:
            return ExcludedModel(model.id, f"It was retired on {model.expires_on}.", "expired")
        if not model.prices.known and self.spend_limit.limit_nano is not None:
            cause = "Its price is not known, so no budget can cover it."
            return ExcludedModel(model.id, cause, "unknown_price")
        exclusion = self._check_size_and_latency(model) if kind == "chat" else None
        if exclusion is None and not (self._is_plain and "text" in model.input_modalities):
            exclusion = self._check_capabilities(model)
        return exclusion

    def _check_capabilities(self, model: Model) -> ExcludedModel | None:
        prompt, inputs = self.request.prompt, self._input_modalities
        if self.request.model_kind == "chat" and not inputs <= model.input_modalities:
            missing = ", ".join(sorted(inputs - model.input_modalities))
            return ExcludedModel(
                model.id, f"It does not take {missing} input.", "unsupported_modality"
            )
        if prompt.tools and not model.supports("tools"):
            return ExcludedModel(model.id, "It cannot call tools.", "unsupported_tools")
        if (prompt.schema or prompt.json_object) and not (
            model.supports("structured_outputs") or model.supports("response_format")
        ):
            cause = "It cannot be held to a response format."
            return ExcludedModel(model.id, cause, "unsupported_response_format")
        if prompt.logprobs and not model.supports("logprobs"):
            return ExcludedModel(model.id, "It does not return logprobs.", "unsupported_logprobs")
        return None

    def _check_size_and_latency(self, model: Model) -> ExcludedModel | None:
        answer, most = self._answer_tokens, model.max_output_tokens
        if most is not None and answer > most:
            answer = most
        tokens = self._prompt_tokens + answer
        if tokens > model.context_length:
            cause = (
                f"About {tokens:,} tokens do not fit into its context of {model.context_length:,}."
            )
            return ExcludedModel(model.id, cause, "context_length_exceeded")
        limit, profile = self.request.hints.max_latency_ms, model.profile
        if limit is not None and profile is not None and profile.latency_ms > limit:
            cause = (
                f"It starts to answer after about {profile.latency_ms} ms, "
                f"over the {limit} ms asked for."
            )
            return ExcludedModel(model.id, cause, "too_slow")
        return None


def _list_input_modalities(prompt: Prompt) -> frozenset[str]:
    counted = (("image", prompt.images), ("file", prompt.files), ("audio", prompt.audio))
    return frozenset({"text", *(name for name, count in counted if count)})
