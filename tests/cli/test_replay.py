"""`sophia replay --policy` on a ledger, as somebody at a terminal runs it."""

import json
import time
from pathlib import Path

import pytest
from terminal import Run

from logged_decisions import ARMS, COSTS, fill

DAY_MS = 86_400_000


@pytest.fixture
async def ledger(tmp_path: Path) -> Path:
    """Three days of decisions, every fourth by the table."""
    path = tmp_path / "sophia.db"
    begun = int(time.time() * 1000) - 3 * DAY_MS + 60_000
    policies = ("learned", "learned", "learned", "heuristic")
    await fill(path, begun, 2400, 0.9, policies, 3 * DAY_MS // 2400)
    return tmp_path


async def test_the_last_days_are_told_as_they_would_have_been(run: Run, ledger: Path) -> None:
    """Table, chart, parts, picture and what cannot be known, within the terminal's width."""
    wanted = ("--policy", "model:a/cheap", "--policy", "hierarchical", "--figure", "out/if.png")
    ran = run("replay", *wanted, "--data-dir", str(ledger), COLUMNS="80")
    assert ran.code == 0, ran.err
    for words in (
        "1,800 decisions", "as it was", "a model:a/cheap", "b hierarchical", "gain", "against",
        "nothing can be known", "Expected dollars per day", "day: hierarchical", "task: model:a/cheap",
    ):  # fmt: skip
        assert words in " ".join(ran.out.split()), words
    assert max(map(len, ran.out.splitlines())) <= 80
    assert (ledger / "out" / "if.png").read_bytes().startswith(b"\x89PNG")


async def test_programs_get_the_same_as_json(run: Run, ledger: Path) -> None:
    """What was billed, what would have been expected, and estimates with their worth."""
    where = ("--data-dir", str(ledger), "--json")
    told = json.loads(run("replay", "--policy", "model:a/cheap", *where).out)
    assert told["judged"] == 1800 and told["others"] == 600
    assert told["billed_usd"] == pytest.approx(1800 * 1000 / 1e9)
    assert told["others_billed_usd"] == pytest.approx(600 * 1000 / 1e9)
    done, cheap = told["policies"]
    assert done["policy"] == "as it was" and done["gain"] is None
    assert cheap["whole"]["cost_usd"] == pytest.approx(1800 * COSTS[0] / 1e9)
    assert cheap["whole"]["verdict"]["type"] == "Assessment"
    assert cheap["whole"]["verdict"]["dr"]["value"] == pytest.approx(0.75, abs=0.06)
    assert len(cheap["days"]) in (3, 4)
    less = json.loads(run("replay", "--policy", "model:a/cheap", "--days", "1", *where).out)
    assert 500 < less["judged"] < 700


async def test_a_dial_and_a_choice_of_models_need_no_policy(run: Run, ledger: Path) -> None:
    """As it was rated then, but for another price of money, or among fewer models."""
    where = ("--data-dir", str(ledger), "--json")
    costs = {}
    for dial in ("cheap", "9.5"):
        told = json.loads(run("replay", "--dial", dial, *where).out)
        assert told["policies"][1]["policy"] == f"learned, dial {dial}"
        costs[dial] = told["policies"][1]["whole"]["cost_usd"]
    assert costs["cheap"] < costs["9.5"]
    told = json.loads(run("replay", "--models", f"{ARMS[0]}, {ARMS[2]}", *where).out)
    only = told["policies"][1]
    assert only["whole"]["cost_usd"] < told["policies"][0]["whole"]["cost_usd"] / 3


async def test_what_the_ledger_cannot_tell_is_refused_with_the_remedy(
    run: Run, ledger: Path
) -> None:
    ran = run("replay", "--policy", "model:c/weak", "--days", "2", "--data-dir", str(ledger))
    assert ran.code == 0
    assert "refused" in ran.out and "--days" in ran.out and "learning.explore" in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--policy", "best-of-all"), 2, "take one of: heuristic, hierarchical"),
        (("--policy", "model:x/none"), 2, "they could to: a/cheap, b/dear"),
        (("--dial", "11"), 2, "0 to 10"),
        (("--dial", "soon"), 2, "0 to 10"),
        (("--policy", "cheap", "--dial", "3"), 2, "a dial itself"),
        (("--policy", "heuristic", "--dial", "3"), 2, "no dial"),
        (("--policy", "learned", "--figure", "x.gif"), 2, ".png or .svg"),
        (("--policy", "learned", "--days", "0"), 1, "/v1/feedback"),
        (("dec-0000000000000000", "--policy", "learned"), 2, "without --policy"),
        (("--policy", "learned", "--data-dir", "nowhere"), 1, "No ledger at"),
    ],
)
async def test_a_wrong_request_is_told_what_is_right(
    run: Run, ledger: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    where = () if "--data-dir" in arguments else ("--data-dir", str(ledger))
    ran = run("replay", *arguments, *where)
    assert ran.code == code
    assert said in " ".join(ran.err.replace("│", " ").split())
    assert "Traceback" not in ran.err
