"""How tests teach a running Sophia, and what they ask of what she learned."""

from typing import Any

from gateway import Gateway
from sophia.compose.learning import replay_of
from sophia.config import Learning
from sophia.learning.replay import Replayed

SOON = Learning(after=20)
QUESTION = "Explain to a child why the leaves of a maple turn red."


async def taught(
    gateway: Gateway, times: int, key: str | None = None, **scores: float
) -> list[dict[str, Any]]:
    """Ask and score `times` times; a model's score is that of its name's first word, else `other`."""
    told = []
    for number in range(times):
        answer = await gateway.client.chat("sophia/auto", text=f"{number} {QUESTION}", key=key)
        assert answer.status == 200
        account = answer.json["sophia"]
        maker = account["model"].partition("/")[0].partition("-")[0]
        score = scores.get(maker, scores["other"])
        verdict = {"decision_id": account["decision_id"], "score": score}
        assert (await gateway.client.post("/v1/feedback", verdict, key=key)).status == 200
        told.append(account)
    return told


async def qualities(gateway: Gateway, key: str | None = None) -> dict[str, float]:
    """Return what is expected of each model for the question, as it is explained to a key."""
    body = {"model": "sophia/learned", "messages": [{"role": "user", "content": QUESTION}]}
    told = (await gateway.client.post("/v1/route", body, key=key)).json
    assert told["policy"] == "hierarchical"
    return {one["model"]: one["quality"] for one in told["candidates"]}


async def replayed(gateway: Gateway, settings: Learning = SOON) -> Replayed:
    """Make every decision again."""
    store = gateway.sophia.store
    again = replay_of(settings, gateway.folder, store)
    return await again.run(await store.decisions(0, 10_000))
