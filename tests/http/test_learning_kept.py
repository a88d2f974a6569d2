"""What was learned is kept: through kills, changed settings and going back, as long as is asked."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from feedback_traffic import (
    QUESTION,
    SOON,
    archive,
    qualities,
    read_history,
    replayed,
    rolled_back,
    taught,
)
from gateway import Gateway, ServerKind, Start
from sophia.adapters.store.snapshots import SnapshotFolder
from sophia.compose.offline import SNAPSHOT_FOLDER
from sophia.config import LearningSettings
from sophia.core.ids import decode_id
from sophia.core.rows import Feedback
from sophia.learning.snapshots import SnapshotConflict, UnknownSnapshot, encode_history


@pytest.fixture
def server() -> ServerKind:
    """What is kept does not depend on the server."""
    return "native"


TEAM = LearningSettings(after=20, share_keys=True)

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from gateway import NO_TIMERS, running
from sophia.config import LearningSettings, Settings
from sophia.sandbox import ScriptedUpstream

async def main():
    folder, shared, *decisions = Path(sys.argv[1]), sys.argv[2] == "True", *sys.argv[3:]
    settings = Settings(
        data_dir=str(folder), catalogue=NO_TIMERS, learning=LearningSettings(after=20, share_keys=shared)
    )
    async with ScriptedUpstream() as up, running(folder, "native", settings, up) as gateway:
        async def struck(row):
            os.kill(os.getpid(), signal.SIGKILL)
        for decision in decisions:
            if decision == decisions[-1]:
                # The ledger holds this verdict by then, and never gets its lesson.
                gateway.sophia.store.add_lesson = struck
            verdict = {"decision_id": decision, "score": 0.1}
            await gateway.client.post("/v1/feedback", verdict)
    sys.exit("nobody struck")

asyncio.run(main())
"""


def killed_while_hearing(folder: Path, *decisions: str, shared: bool) -> None:
    """Serve the folder in a process that is killed between the last verdict and its lesson."""
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(shared), *decisions],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


@pytest.mark.parametrize("settings", [SOON, TEAM])
async def test_a_verdict_whose_learning_was_killed_is_learned_at_the_next_start(
    start: Start, settings: LearningSettings
) -> None:
    """Once, with the weight that it would have had, and behind what was learned before it."""
    async with start(learning=settings) as gateway:
        told = await taught(gateway, 25, other=0.9)
        usual = Counter(one["model"] for one in told).most_common(1)[0][0]
        account, number = {"model": ""}, 100
        while account["model"] != usual:
            # Who asks the same again is taken to be discontent with the answer.
            number += 1
            answer = await gateway.client.chat("sophia/auto", text=f"{number} {QUESTION}")
            account = answer.json["sophia"]
    same = [one for one in told if one["model"] == usual]
    killed_while_hearing(gateway.folder, account["decision_id"], shared=settings.share_keys)
    async with start(learning=settings) as gateway:
        lessons = await gateway.rows("lessons")
        assert len(await gateway.rows("feedback")) == 26
        assert [one["number"] for one in lessons] == list(range(1, 27))
        last = lessons[-1]
        assert last["decision_id"] == decode_id("dec", account["decision_id"])
        assert last["quality"] == pytest.approx(0.1)
        weights = [one["weight"] for one in lessons if one["arm"] == last["arm"]]
        assert len(weights) == len(same) + 1
        if settings.share_keys:
            ratios = [after / before for before, after in zip(weights, weights[1:], strict=False)]
            assert ratios == pytest.approx([ratios[0]] * len(ratios)) and ratios[0] < 1
        assert gateway.sophia.learning.routing.policy.lesson_count == 26
        await taught(gateway, 3, other=0.9)
        assert (await replayed(gateway, settings)).different == ()
    async with start(learning=settings) as gateway:
        assert len(await gateway.rows("lessons")) == 29


async def test_what_teaches_nothing_is_not_made_a_lesson_at_the_next_start(start: Start) -> None:
    """A second word on a channel, a word without a score, and a channel that nobody knows."""
    async with start(learning=SOON) as gateway:
        account = (await taught(gateway, 1, other=0.5))[0]
        for more in (
            {"score": 1.0, "idempotency_key": "again"},
            {"label": "fine", "idempotency_key": "mute", "channel": "edit"},
        ):
            await asyncio.sleep(0.002)
            verdict = {"decision_id": account["decision_id"], **more}
            assert (await gateway.client.post("/v1/feedback", verdict)).status == 200
        number = decode_id("dec", account["decision_id"])
        intent = await gateway.sophia.store.decision(number)
        strange = Feedback(
            idempotency_key="k:x",
            decision_id=number,
            key_id=intent.key_id,
            score=1.0,
            label=None,
            comment_chars=0,
            preferred_model=None,
            channel="rumour",
            at_ms=intent.at_ms,
        )
        await gateway.sophia.store.add_feedback(strange)
    async with start(learning=SOON) as gateway:
        assert len(await gateway.rows("lessons")) == 1


async def test_previous_twice_goes_back_two_steps(start: Start) -> None:
    known = []
    for score in (0.9, 0.4, 0.0):
        async with start(learning=SOON) as gateway:
            await taught(gateway, 22, other=score)
            known.append(await qualities(gateway))
    async with start(learning=SOON) as gateway:
        for expected in (known[1], known[0]):
            await rolled_back(gateway)
            await gateway.sophia.learning.snapshots()
            assert await qualities(gateway) == expected
    async with start(learning=SOON) as gateway:
        assert await qualities(gateway) == known[0]
        await rolled_back(gateway)
        with pytest.raises(UnknownSnapshot, match="no earlier"):
            await rolled_back(gateway)


async def test_decisions_replay_when_keys_learned_apart_and_then_together(start: Start) -> None:
    """Each is made again as keys learned then, also where a kill left lessons without a snapshot."""
    async with start(learning=SOON) as gateway:
        await taught(gateway, 30, google=0.1, other=0.9)
        words = [f"{number}? {QUESTION}" for number in range(3)]
        fresh = [(await gateway.client.chat("sophia/auto", text=one)).json for one in words]
    killed_while_hearing(
        gateway.folder, *(one["sophia"]["decision_id"] for one in fresh), shared=False
    )
    async with start(learning=TEAM) as gateway:
        assert "keys learn together" in [step.reason for step in read_history(gateway)]
        assert len(await gateway.rows("lessons")) == 33
        await taught(gateway, 30, google=0.9, other=0.1)
        assert (await replayed(gateway, SOON)).different == ()
    async with start(learning=SOON) as gateway:
        await taught(gateway, 5, other=0.9)
        for settings in (SOON, TEAM):
            result = await replayed(gateway, settings)
            assert result.different == () and result.identical >= 15


def aged(gateway: Gateway, days: float) -> None:
    """Make everything that is in the folder's history so many days older."""
    kept = SnapshotFolder(gateway.folder / SNAPSHOT_FOLDER)
    older = int(days * 86_400_000)
    history = tuple(replace(one, at_ms=one.at_ms - older) for one in read_history(gateway))
    kept.save_history(encode_history(history))


async def test_snapshots_are_kept_as_long_as_is_asked(start: Start) -> None:
    """Decisions that rest on what is gone say so; no other comes out differently."""
    brief = LearningSettings(after=20, keep_days=1.0, keep_snapshots=2)
    for _ in range(4):
        async with start(learning=brief) as gateway:
            await taught(gateway, 21, other=0.9)
    aged(gateway, 3)
    async with start(learning=brief) as gateway:
        assert (await replayed(gateway, brief)).expired == 0
        await taught(gateway, 5, other=0.9)
    async with start(learning=brief) as gateway:
        history = read_history(gateway)
        kept = [step.id for step in history if not step.expired]
        assert len(history) == 6 and len(kept) == 2
        assert sorted(SnapshotFolder(gateway.folder / SNAPSHOT_FOLDER).ids()) == sorted(kept)
        result = await replayed(gateway, brief)
        assert result.different == () and result.expired >= 30 and result.identical >= 4
        with pytest.raises(UnknownSnapshot, match="0 snapshots"):
            await rolled_back(gateway, history[0].id, brief)
        await rolled_back(gateway, None, brief)
        (gateway.folder / SNAPSHOT_FOLDER / f"{kept[0]}.snapshot").unlink()
        assert (await replayed(gateway, brief)).different


async def test_what_a_command_and_the_server_put_into_service_at_once_is_not_undone(
    start: Start,
) -> None:
    """A command that read the state before the server wrote another one is told, and vice versa."""
    async with start(learning=SOON) as gateway:
        folder = SnapshotFolder(gateway.folder / SNAPSHOT_FOLDER)
        commands = archive(gateway)
        first, late = commands.load_active(), commands.load_active()
        commands.publish(first, 1, "probed one")
        files = folder.ids()
        with pytest.raises(SnapshotConflict):
            commands.publish(late, 2, "probed another")
        assert folder.ids() == files, "and it leaves nothing behind"
        await taught(gateway, 2, other=0.8)
    # Stopping keeps what was learned, but not over what the command did.
    assert [step.reason for step in read_history(gateway)][-1] == "probed one"
