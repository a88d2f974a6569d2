"""How tests teach a running Sophia, and what they ask of what she learned."""

from collections.abc import Sequence
from typing import Any

from gateway import Gateway
from sophia.compose.offline import build_policy_archive
from sophia.config import LearningSettings, Settings
from sophia.learning.online.archive import PolicyArchive
from sophia.learning.online.replay import DecisionReplay, ReplayResult
from sophia.learning.operations.rollback import roll_back
from sophia.learning.snapshots import ActivationHistory

SOON = LearningSettings(after=20)
QUESTION = "Explain to a child why the leaves of a maple turn red."


async def taught(
    gateway: Gateway,
    times: int,
    key: str | None = None,
    among: Sequence[str] | None = None,
    **scores: float,
) -> list[dict[str, Any]]:
    """Ask and score `times` times; a model's score is that of its name's first word, else `other`.

    With `among` the choice is one of these models.
    """
    told, hints = [], {} if among is None else {"models": list(among)}
    for number in range(times):
        answer = await gateway.client.chat(
            "sophia/auto", text=f"{number} {QUESTION}", key=key, sophia=hints
        )
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


def archive(gateway: Gateway, settings: LearningSettings = SOON) -> PolicyArchive:
    """Return the snapshots in the data folder, as a command opens them."""
    return build_policy_archive(Settings(data_dir=str(gateway.folder), learning=settings))


def read_history(gateway: Gateway) -> ActivationHistory:
    """Return the snapshots that were in service, oldest first."""
    return archive(gateway).read_history()


async def rolled_back(
    gateway: Gateway, target: str | None = None, settings: LearningSettings = SOON
) -> str:
    """Return to an earlier snapshot, as `sophia policy rollback` does."""
    return await roll_back(archive(gateway, settings), gateway.sophia.store, target, 1)


async def replayed(gateway: Gateway, settings: LearningSettings = SOON) -> ReplayResult:
    """Make every decision again."""
    store = gateway.sophia.store
    replay = DecisionReplay(archive(gateway, settings), store)
    return await replay.run(await store.decisions(0, 10_000))
