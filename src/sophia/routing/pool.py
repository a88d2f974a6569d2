"""The models a request may be routed to, with their unchanging facts worked out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec import Struct

from sophia.catalogue.model import Model
from sophia.catalogue.prices import Tier
from sophia.core.money import MAX_NANO
from sophia.routing.nouns import TASK_TYPES, TaskType

UNKNOWN_QUALITY = 0.5
UNKNOWN_LATENCY_MS = 2000

# This model bills a picture at up to 48,169 tokens, eight times the allowance that covers the rest.
_DEAR_IMAGES = {"openai/gpt-4o-mini": 50_000}


class Seat(Struct, frozen=True):
    """One model of a pool; `base` and `ceiling` hold for prompts below `dearer_from` tokens."""

    model: Model
    id: str
    role: str
    quality: Mapping[str, float]
    latency_ms: int
    base: Tier
    ceiling: Tier
    dearer_from: int
    request: int
    output_bound: int
    image_surplus: int

    @classmethod
    def of(cls, model: Model) -> "Seat":
        """Return the seat of `model`; without a profile its quality and latency are guesses."""
        profile, prices, base = model.profile, model.prices, model.prices.tiers[0]
        images = 0
        for prefix, tokens in _DEAR_IMAGES.items():
            if model.id.startswith(prefix):
                images = tokens
        return cls(
            model,
            model.id,
            profile.role if profile else "",
            profile.quality if profile else {},
            profile.latency_ms if profile else UNKNOWN_LATENCY_MS,
            base,
            prices.ceiling(base.min_prompt_tokens) if base.cache_write else base,
            prices.tiers[1].min_prompt_tokens if len(prices.tiers) > 1 else MAX_NANO,
            prices.request,
            model.max_output_tokens or model.context_length,
            images,
        )


@dataclass(frozen=True, slots=True)
class Pool:
    """Routable models: built once per catalogue, shared by all requests.

    `ranking` holds the seats of a task type from the best quality down, cheaper first at a tie;
    `by_role` the first model of each role.
    """

    seats: tuple[Seat, ...]
    by_id: Mapping[str, Seat]
    by_role: Mapping[str, Seat]
    ranking: Mapping[TaskType, tuple[Seat, ...]]

    @classmethod
    def of(cls, models: Iterable[Model]) -> "Pool":
        """Return the pool of `models`, in their order; a repeated id counts once."""
        by_id: dict[str, Seat] = {}
        by_role: dict[str, Seat] = {}
        for model in models:
            if model.id not in by_id:
                seat = Seat.of(model)
                by_id[model.id] = seat
                by_role.setdefault(seat.role, seat)
        by_role.pop("", None)
        seats = tuple(by_id.values())
        ranking = {
            task: tuple(sorted(seats, key=lambda seat: _standing(seat, task)))
            for task in TASK_TYPES
        }
        return cls(seats, by_id, by_role, ranking)


def quality_of(seat: Seat, task: str) -> float:
    """Return the quality to expect, 0 to 1."""
    return seat.quality.get(task, UNKNOWN_QUALITY)


def _standing(seat: Seat, task: str) -> tuple[float, int, str]:
    return (-quality_of(seat, task), seat.base.prompt + seat.base.completion, seat.id)
