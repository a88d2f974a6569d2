"""Adaptation of a request to a model that the caller did not name. Pure."""

import msgspec
from msgspec import Raw

from sophia.catalogue.model import Model
from sophia.core.calls import Fields

MAX_CODE_TEMPERATURE = 0.5
"""Highest temperature for a model whose role is code, as a lower one gives fewer slips."""
_OPTIONAL_FIELDS = frozenset(
    {"temperature", "top_p", "top_k", "top_a", "min_p", "seed", "frequency_penalty"}
    | {"presence_penalty", "repetition_penalty", "logit_bias", "parallel_tool_calls", "verbosity"}
)
"""Fields that only tune an answer, so that it is better to leave them out than to fail."""
_CODE_ROLES = frozenset({"code", "code specialist"})


def adapt_fields(fields: Fields, model: Model) -> tuple[Fields, tuple[str, ...]]:
    """Return the fields as `model` takes them, and a sentence for each change.

    Nothing that a request needs is left out: models without tools, schemas or a context that is
    long enough are no candidates.
    """
    present = _OPTIONAL_FIELDS.intersection(fields)
    if not present:
        return fields, ()
    dropped = sorted(name for name in present if not model.supports(name))
    changed: dict[str, object] = {}
    is_code = model.profile is not None and model.profile.role in _CODE_ROLES
    temperature = _read_number(fields.get("temperature"))
    if is_code and temperature > MAX_CODE_TEMPERATURE and "temperature" not in dropped:
        changed["temperature"] = MAX_CODE_TEMPERATURE
    if not dropped and not changed:
        return fields, ()
    kept = {name: value for name, value in fields.items() if name not in dropped}
    notes = [f"{model.id} does not take {name}, so it was left out." for name in dropped]
    if changed:
        notes.append(f"The temperature was lowered to {MAX_CODE_TEMPERATURE} for a code model.")
    return {**kept, **changed}, tuple(notes)


def _read_number(value: object) -> float:
    if isinstance(value, Raw):
        value = msgspec.json.decode(value)
    return float(value) if isinstance(value, int | float) else 0.0
