"""A small catalogue for routing tests: the plan's nine models with round prices."""

from collections.abc import Iterable
from dataclasses import replace

from sophia.catalogue.model import Model, Profile
from sophia.catalogue.prices import Prices, Tier
from sophia.routing.nouns import TASK_TYPES, Hints, Prompt
from sophia.routing.pool import Pool
from sophia.routing.request import Limits, RouteRequest
from sophia.routing.rules import RuleBook

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
    return Model(
        id=id,
        name=id,
        context_length=window[0],
        max_output_tokens=window[1],
        prices=Prices((Tier(0, nano(price[0]), nano(price[1])),)),
        input_modalities=frozenset({"text", "image"}),
        output_modalities=frozenset({"text"}),
        parameters=EVERYTHING,
        profile=Profile(id, role, (), dict.fromkeys(TASK_TYPES, quality), latency_ms, 80),
    )


MODELS = (
    replace(
        build(SONNET, "complex reasoning", (3, 15), 0.95, 2000, (1_000_000, 64_000)),
        prices=Prices(
            (Tier(0, nano(3), nano(15), None, nano(3.75)), Tier(200_000, nano(6), nano(22.5)))
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
POOL = Pool.of(MODELS)
BY_ID = {model.id: model for model in MODELS}


def asked(text: str = "What is the capital of France?", **counts: int | bool | None) -> Prompt:
    """Return the prompt of a text, counted as http would count it."""
    filled = {"chars": len(text), "utf8_bytes": len(text.encode()), **counts}
    return Prompt(text[-2000:])._replace(**filled)


def ask(
    prompt: Prompt | None = None,
    hints: Hints | None = None,
    *,
    models: Iterable[Model] | None = None,
    limits: Limits | None = None,
    rulebook: RuleBook | None = None,
    fallbacks: tuple[str, ...] = (),
    unhealthy: frozenset[str] = frozenset(),
) -> RouteRequest:
    """Return a request over the nine models, or over `models`."""
    pool = POOL if models is None else Pool.of(models)
    known = BY_ID if models is None else {model.id: model for model in pool_models(pool)}
    return RouteRequest(
        prompt or asked(),
        hints or Hints(),
        pool,
        {**BY_ID, **known}.get,
        limits or Limits(),
        TODAY,
        rulebook or RuleBook(),
        fallbacks,
        unhealthy,
    )


def pool_models(pool: Pool) -> tuple[Model, ...]:
    """Return the models that sit in a pool."""
    return tuple(seat.model for seat in pool.seats)
