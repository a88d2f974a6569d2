"""`sophia policy compare` on a ledger, in a terminal."""

import json
import time
from pathlib import Path

import pytest
from terminal import Run

from logged_decisions import ARMS, COSTS, fill

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of decisions, every fourth by the table; comparing changes nothing."""
    folder = tmp_path_factory.mktemp("ledger")
    begun = int(time.time() * 1000) - 3 * DAY_MS + 60_000
    policies = ("learned", "learned", "learned", "heuristic")
    fill(folder / "sophia.db", begun, 2400, 0.9, policies, 3 * DAY_MS // 2400)
    return folder


def test_the_last_days_are_told_as_they_would_have_been(
    run: Run, ledger: Path, tmp_path: Path
) -> None:
    """Table, parts, picture and what cannot be known, within the terminal's width."""
    wanted = ("--policy", "model:a/cheap", "--policy", "hierarchical", "--figure", "out/if.png")
    ran = run("policy", "compare", *wanted, "--data-dir", str(ledger), COLUMNS="80")
    assert ran.code == 0, ran.err
    for words in (
        "1,800 decisions", "as it was", "model:a/cheap", "hierarchical", "gain", "against",
        "are left out", "day: hierarchical", "task: model:a/cheap",
    ):  # fmt: skip
        assert words in " ".join(ran.out.split()), words
    assert max(map(len, ran.out.splitlines())) <= 80
    assert (tmp_path / "out" / "if.png").read_bytes().startswith(b"\x89PNG")


def test_programs_get_the_same_as_json(run: Run, ledger: Path) -> None:
    """What was billed, what would have been expected, and estimates with their worth."""
    where = ("--data-dir", str(ledger), "--json")
    told = json.loads(run("policy", "compare", "--policy", "model:a/cheap", *where).out)
    assert told["evaluated"] == 1800 and told["deterministic"] == 600
    assert told["billed_usd"] == pytest.approx(1800 * 1000 / 1e9)
    assert told["deterministic_billed_usd"] == pytest.approx(600 * 1000 / 1e9)
    done, cheap = told["policies"]
    assert done["policy"] == "as it was" and done["gain"] is None
    assert cheap["overall"]["cost_usd"] == pytest.approx(1800 * COSTS[0] / 1e9)
    assert cheap["overall"]["estimate"]["type"] == "OffPolicyEstimate"
    assert cheap["overall"]["estimate"]["dr"]["value"] == pytest.approx(0.75, abs=0.06)
    assert len(cheap["days"]) in (3, 4)
    less = json.loads(
        run("policy", "compare", "--policy", "model:a/cheap", "--days", "1", *where).out
    )
    assert 500 < less["evaluated"] < 700


def test_a_dial_and_a_choice_of_models_need_no_policy(run: Run, ledger: Path) -> None:
    """As it was rated then, but for another price of money, or among fewer models."""
    where = ("--data-dir", str(ledger), "--json")
    costs = {}
    for bias in ("cheap", "9.5"):
        told = json.loads(run("policy", "compare", "--quality-bias", bias, *where).out)
        assert told["policies"][1]["policy"] == f"learned, quality bias {bias}"
        costs[bias] = told["policies"][1]["overall"]["cost_usd"]
    assert costs["cheap"] < costs["9.5"]
    told = json.loads(run("policy", "compare", "--models", f"{ARMS[0]}, {ARMS[2]}", *where).out)
    only = told["policies"][1]
    assert only["overall"]["cost_usd"] < told["policies"][0]["overall"]["cost_usd"] / 3


def test_what_the_ledger_cannot_tell_is_refused_with_the_remedy(
    run_process: Run, ledger: Path
) -> None:
    ran = run_process(
        "policy", "compare", "--policy", "model:c/weak", "--days", "2", "--data-dir", str(ledger)
    )
    assert ran.code == 0
    assert (
        "No score yet for model:c/weak: " in ran.out
        and "--days" in ran.out
        and "learning.explore" in ran.out
    )


def test_on_the_first_day_one_sentence_says_that_there_are_no_scores_yet(
    run: Run, tmp_path: Path
) -> None:
    now = int(time.time() * 1000) - 60_000
    fill(tmp_path / "sophia.db", now, 24, 0.9, ("learned",), 1000)
    policies = ("--policy", "model:a/cheap", "--policy", "heuristic")
    ran = run("policy", "compare", *policies, "--data-dir", str(tmp_path))
    assert ran.code == 0, ran.err
    words = " ".join(ran.out.split())
    assert words.count("200 are needed") == words.count("No scores yet: ") == 1
    assert " gain " not in words and " against " in words


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--policy", "best-of-all"), 2, "use one of: heuristic, hierarchical"),
        (("--policy", "model:x/none"), 2, "the candidates were: a/cheap, b/dear"),
        (("--quality-bias", "11"), 2, "0 to 10"),
        (("--quality-bias", "soon"), 2, "0 to 10"),
        (("--policy", "cheap", "--quality-bias", "3"), 2, "a quality bias itself"),
        (("--policy", "heuristic", "--quality-bias", "3"), 2, "neither --quality-bias nor"),
        (("--policy", "learned", "--figure", "x.gif"), 2, ".png or .svg"),
        (("--policy", "learned", "--days", "0"), 1, "/v1/feedback"),
        (("--policy", "learned", "--data-dir", "nowhere"), 1, "No ledger at"),
    ],
)
def test_a_wrong_request_is_told_what_is_right(
    run: Run, ledger: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    where = () if "--data-dir" in arguments else ("--data-dir", str(ledger))
    ran = run("policy", "compare", *arguments, *where)
    assert ran.code == code
    assert said in " ".join(ran.err.replace("│", " ").split())
    assert "Traceback" not in ran.err
