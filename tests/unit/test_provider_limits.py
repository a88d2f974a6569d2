"""`routing.provider` narrows where OpenRouter may send a request, and no request widens it."""

import json

import pytest

from sophia.adapters.upstreams.dialects import build_openrouter_dialect
from sophia.config import ProviderSettings
from sophia.core.calls import Deadlines, PriceCeiling, UpstreamCall


def provider_of(allowed: ProviderSettings, own: dict[str, object] | None) -> dict[str, object]:
    """Return the provider object that is sent for a caller's own one."""
    call = UpstreamCall(
        request_id="req-1",
        endpoint="chat/completions",
        model="acme/one",
        fields={"messages": [], **({} if own is None else {"provider": own})},
        stream=False,
        deadlines=Deadlines(),
        price_ceiling=PriceCeiling(10**9, 2 * 10**9),
    )
    body = json.loads(build_openrouter_dialect(allowed)(call, frozenset()))
    found: dict[str, object] = body.get("provider", {})
    assert found.pop("max_price") == {"prompt": 1.0, "completion": 2.0}
    return found


@pytest.mark.parametrize(
    ("allowed", "own", "sent"),
    [
        (ProviderSettings(), None, {}),
        (ProviderSettings(), {"only": ["a"]}, {"only": ["a"]}),
        (ProviderSettings(zdr=True), None, {"zdr": True}),
        (
            ProviderSettings(zdr=True),
            {"zdr": False, "sort": "price"},
            {"zdr": True, "sort": "price"},
        ),
        (
            ProviderSettings(no_training=True),
            {"data_collection": "allow"},
            {"data_collection": "deny"},
        ),
        (ProviderSettings(only=("a", "b")), None, {"only": ["a", "b"]}),
        (ProviderSettings(only=("a", "b")), {"only": ["b", "c"]}, {"only": ["b"]}),
        (ProviderSettings(only=("a",)), {"only": ["c"]}, {"only": ["a"], "ignore": ["a"]}),
        (ProviderSettings(ignore=("x",)), {"ignore": ["y", "x"]}, {"ignore": ["y", "x"]}),
        (ProviderSettings(ignore=("x",)), {"ignore": "odd"}, {"ignore": ["x"]}),
    ],
)
def test_a_request_is_narrowed_to_the_allowed_providers(
    allowed: ProviderSettings, own: dict[str, object] | None, sent: dict[str, object]
) -> None:
    assert provider_of(allowed, own) == sent
