"""Roles of the pool follow newer models: a better one at no higher price takes a role over."""

from collections.abc import Callable
from fnmatch import fnmatchcase

from msgspec import Struct
from msgspec.structs import replace

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import Model, ModelProfile
from sophia.catalogue.profiles import ModelProfiles
from sophia.core.money import format_usd

SkillRating = Callable[[str, tuple[str, ...]], float | None]
"""Returns the expected quality of a model, 0 to 1, over kinds of work; None without a rating."""

MIN_GAIN = 0.01
"""The least gain in expected quality for which a role changes hands."""
_PROMPT_TOKENS_PER_COMPLETION_TOKEN = 3


class RoleChange(Struct, frozen=True):
    """A role that goes to another model than its profile names, and the reason."""

    role: str
    before: str
    after: str
    reason: str


def follow_successors(
    catalogue: Catalogue, profiles: ModelProfiles, rate: SkillRating
) -> tuple[Catalogue, tuple[RoleChange, ...]]:
    """Return the catalogue with each role at the best model that costs no more, and the changes.

    A candidate calls tools, has a rating of its own and a price, and matches the profile's
    `candidates` and `min_context`. No model takes two roles.
    """
    current = catalogue.with_profiles(profiles)
    taken = {model.id for model in current.profiled_models}
    able = [model for model in current.models if _is_candidate(model)]
    changes, followed = [], list(profiles.profiles)
    for model in current.profiled_models:
        profile = model.profile
        if profile is None or not profile.skills:
            continue
        best = _find_better(model, profile, [one for one in able if one.id not in taken], rate)
        if best is None:
            continue
        taken.add(best.id)
        followed[followed.index(profile)] = replace(
            profile, id=best.id, successors=(profile.id, *profile.successors)
        )
        reason = f"better rating at {_format_price(best)} instead of {_format_price(model)}"
        changes.append(RoleChange(profile.role, model.id, best.id, reason))
    if not changes:
        return current, ()
    return catalogue.with_profiles(replace(profiles, profiles=tuple(followed))), tuple(changes)


def _is_candidate(model: Model) -> bool:
    plain = ":" not in model.id and not model.id.startswith("~") and model.alias_of is None
    priced = model.prices.known and model.prices.plausible and _blend_price(model) > 0
    text = "text" in model.input_modalities and "text" in model.output_modalities
    able = model.kind == "chat" and text and model.supports("tools")
    return plain and priced and able and model.expires_on is None


def _find_better(
    model: Model, profile: ModelProfile, candidates: list[Model], rate: SkillRating
) -> Model | None:
    own, price = rate(model.id, profile.skills) or 0.0, _blend_price(model)
    rated = []
    for one in candidates:
        if _blend_price(one) > price or one.context_length < profile.min_context:
            continue
        if not any(fnmatchcase(one.id, pattern) for pattern in profile.candidates):
            continue
        quality = rate(one.id, profile.skills)
        if quality is not None and quality >= own + MIN_GAIN:
            rated.append((quality, -_blend_price(one), one.id, one))
    return max(rated, key=lambda row: row[:3])[3] if rated else None


def _blend_price(model: Model) -> int:
    """Return the price of a typical million tokens, prompt and answer, in nano-dollars."""
    tier = model.prices.tiers[0]
    parts = _PROMPT_TOKENS_PER_COMPLETION_TOKEN + 1
    return (_PROMPT_TOKENS_PER_COMPLETION_TOKEN * tier.prompt + tier.completion) // parts


def _format_price(model: Model) -> str:
    return f"{format_usd(_blend_price(model))} per million tokens"
