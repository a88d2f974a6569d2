"""Every reason why a model cannot serve a request, and the sentence that says so."""

from dataclasses import replace

import pytest
from routing_world import BY_ID, FLASH, TODAY, ask, asked

from sophia.catalogue.model import Model
from sophia.routing.candidates import Candidates
from sophia.routing.request import KeyLimits
from sophia.routing.types import ExcludedModel, Hints, Prompt

MODEL = BY_ID[FLASH]
BARE = replace(
    MODEL, input_modalities=frozenset({"text"}), supported_parameters=frozenset({"max_tokens"})
)


def judge(model: Model, prompt: Prompt, hints: Hints | None = None) -> ExcludedModel | None:
    request = ask(prompt, hints, models=[model], limits=KeyLimits(per_request_nano=10**12))
    return Candidates(request).excluded.get(model.id)


def test_an_able_model_is_not_excluded() -> None:
    """A plain question suits any chat model."""
    assert judge(MODEL, asked()) is None
    assert judge(BARE, asked()) is None


@pytest.mark.parametrize(
    ("model", "prompt", "code"),
    [
        (replace(MODEL, kind="image"), asked(), "wrong_kind"),
        (replace(MODEL, expires_on=TODAY), asked(), "expired"),
        (replace(MODEL, expires_on="2026-01-01"), asked(), "expired"),
        (replace(MODEL, prices=replace(MODEL.prices, known=False)), asked(), "unknown_price"),
        (replace(MODEL, context_length=500), asked("x " * 2000), "context_length_exceeded"),
        (
            replace(MODEL, context_length=9000),
            asked("x", max_tokens=9000),
            "context_length_exceeded",
        ),
        (BARE, asked("x", images=1), "unsupported_modality"),
        (BARE, asked("x", files=1), "unsupported_modality"),
        (BARE, asked("x", audio=1), "unsupported_modality"),
        (BARE, asked("x", tools=1), "unsupported_tools"),
        (BARE, asked("x", schema=True), "unsupported_response_format"),
        (BARE, asked("x", json_object=True), "unsupported_response_format"),
        (BARE, asked("x", logprobs=True), "unsupported_logprobs"),
    ],
)
def test_each_cause_has_its_code_and_sentence(model: Model, prompt: Prompt, code: str) -> None:
    """The caller learns what to change."""
    cause = judge(model, prompt)
    assert cause is not None
    assert cause.code == code
    assert cause.model == model.id
    assert cause.cause.endswith(".")


def test_a_latency_ceiling_excludes_slow_models_only_when_declared() -> None:
    """`max_latency_ms` is a constraint, its default is not."""
    slow = judge(MODEL, asked(), Hints(max_latency_ms=499))
    assert slow is not None
    assert slow.code == "too_slow"
    assert judge(MODEL, asked(), Hints(max_latency_ms=500)) is None


def test_an_expiry_in_the_future_does_no_harm() -> None:
    """A model serves until the day it is retired."""
    assert judge(replace(MODEL, expires_on="2026-11-24"), asked()) is None


def test_max_tokens_beyond_what_the_model_writes_counts_only_that_far() -> None:
    """An answer is at most as long as the model makes it."""
    model = replace(MODEL, context_length=20_000, max_output_tokens=1000)
    assert judge(model, asked("x", max_tokens=50_000)) is None
