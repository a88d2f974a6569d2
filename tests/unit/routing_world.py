"""A small catalogue for routing tests: the plan's nine models with round prices."""

from collections.abc import Iterable
from dataclasses import replace

from sophia.catalogue.model import Model, ModelProfile
from sophia.catalogue.prices import Prices, PriceTier
from sophia.routing.features.extract import extract_features
from sophia.routing.pool import ModelPool, PoolModel, QualityByTask
from sophia.routing.request import KeyLimits, RouteRequest
from sophia.routing.rules.model import RuleBook, find_rule
from sophia.routing.types import TASK_TYPES, Hints, Prompt

TODAY = "2026-11-23"
EVERYTHING = frozenset({"tools", "structured_outputs", "response_format", "logprobs", "max_tokens"})

SONNET = "anthropic/claude-sonnet-4.5"
FLASH = "google/gemini-2.5-flash"
DEEPSEEK = "deepseek/deepseek-v3.2"
QWEN = "qwen/qwen3-coder"
KIMI = "moonshotai/kimi-k2-0905"
GROK = "x-ai/grok-4.3"
NEMO = "mistralai/mistral-nemo"
MINI = "openai/gpt-4o-mini"
GEMMA = "google/gemma-4-31b-it:free"


QUALITY: dict[str, QualityByTask] = {}
"""Quality priors of the models that were built."""


def nano(usd_per_mtok: float) -> int:
    """Return a price per million tokens in nano-dollars."""
    return round(usd_per_mtok * 1_000_000_000)


def build(
    id: str,
    role: str,
    price: tuple[float, float],
    quality: float,
    latency_ms: int = 500,
    window: tuple[int, int | None] = (200_000, 16_384),
) -> Model:
    """Return a model that takes text and pictures and every parameter."""
    QUALITY[id] = dict.fromkeys(TASK_TYPES, quality)
    return Model(
        id=id,
        name=id,
        context_length=window[0],
        max_output_tokens=window[1],
        prices=Prices(
            (PriceTier(min_prompt_tokens=0, prompt=nano(price[0]), completion=nano(price[1])),)
        ),
        input_modalities=frozenset({"text", "image"}),
        output_modalities=frozenset({"text"}),
        supported_parameters=EVERYTHING,
        profile=ModelProfile(id=id, role=role, latency_ms=latency_ms, tokens_per_second=80),
    )


MODELS = (
    replace(
        build(SONNET, "complex reasoning", (3, 15), 0.95, 2000, (1_000_000, 64_000)),
        prices=Prices(
            (
                PriceTier(
                    min_prompt_tokens=0,
                    prompt=nano(3),
                    completion=nano(15),
                    cache_read=None,
                    cache_write=nano(3.75),
                ),
                PriceTier(min_prompt_tokens=200_000, prompt=nano(6), completion=nano(22.5)),
            )
        ),
    ),
    build(FLASH, "fast", (0.3, 2.5), 0.85, 500, (1_048_576, 65_535)),
    build(DEEPSEEK, "code", (0.26, 0.38), 0.90, 1000, (163_840, None)),
    build(QWEN, "code specialist", (0.3, 1.0), 0.88, 800, (262_144, 65_536)),
    build(KIMI, "long context", (0.6, 2.5), 0.87, 1500, (262_144, 98_304)),
    build(GROK, "creative", (1.25, 2.5), 0.86, 1800, (1_000_000, None)),
    build(NEMO, "european", (0.029, 0.03), 0.77, 600, (131_072, 16_384)),
    build(MINI, "fallback", (0.15, 0.6), 0.80, 700, (128_000, 16_384)),
    build(GEMMA, "free", (0, 0), 0.79, 900, (262_144, 32_768)),
)


def quality_prior(model: str) -> QualityByTask:
    """Return the quality of a model that was built, nothing for another."""
    return QUALITY.get(model, {})


POOL = ModelPool.from_models(MODELS, quality_prior)
BY_ID = {model.id: model for model in MODELS}


def asked(text: str = "What is the capital of France?", **counts: int | bool | None) -> Prompt:
    """Return the prompt of a text, counted as http would count it."""
    filled = {"chars": len(text), "utf8_bytes": len(text.encode()), **counts}
    return Prompt(text=text[-2000:], **filled)


def ask(
    prompt: Prompt | None = None,
    hints: Hints | None = None,
    *,
    models: Iterable[Model] | None = None,
    limits: KeyLimits | None = None,
    rulebook: RuleBook | None = None,
    fallbacks: tuple[str, ...] = (),
    expired: frozenset[str] = frozenset(),
) -> RouteRequest:
    """Return a request over the nine models, or over `models`; those in `expired` are retired."""
    if expired:
        models = [replace(m, expires_on=TODAY) if m.id in expired else m for m in models or MODELS]
    pool = POOL if models is None else ModelPool.from_models(models, quality_prior)
    known = BY_ID | {entry.id: entry.model for entry in pool.models}
    prompt, hints = prompt or asked(), hints or Hints()
    features = extract_features(prompt, hints)

    def find_model(name: str) -> PoolModel | None:
        model = known.get(name)
        return model and PoolModel.from_model(model, quality_prior(name))

    return RouteRequest(
        prompt=prompt,
        hints=hints,
        features=features,
        pool=pool,
        find_model=find_model,
        limits=limits or KeyLimits(),
        today=TODAY,
        rule=find_rule(rulebook or RuleBook(), hints, features),
        fallback_models=fallbacks,
    )
