"""`sophia decisions`, `sophia models show` and `sophia policy` on the folder of a running server."""

import json
import re
from urllib.request import Request, urlopen

import pytest
from terminal import Run, Served

from sophia.cli.route_output import print_decision


def decide(served: Served, run: Run, model: str) -> str:
    """Ask for an answer and return the id of the decision."""
    where = ("--base-url", served.base_url, "--key", served.key)
    ran = run("chat", "Say hello.", "--model", model, *where)
    found = re.search(r"dec-[0-9a-f]{16}", ran.err)
    assert found is not None, ran.err
    return found[0]


@pytest.fixture(scope="session")
def decision(served: Served, run_session: Run) -> str:
    """The id of a decision that the server has made."""
    return decide(served, run_session, "sophia/auto")


def test_a_decision_is_shown_as_route_explains_it(
    served: Served, run_process: Run, decision: str
) -> None:
    """Candidates and attempts as they were, and the outcome."""
    data = ("--data-dir", str(served.data))
    ran = run_process("decisions", "show", decision, *data, COLUMNS="100")
    assert ran.code == 0, ran.err
    for words in ("chosen", "attempt", "outcome", "stop", "expected"):
        assert words in ran.out
    assert max(map(len, ran.out.splitlines())) <= 100


def test_programs_get_what_the_api_tells(served: Served, run: Run, decision: str) -> None:
    """The body of `GET /v1/decisions/{id}`."""
    told = json.loads(
        run("decisions", "show", decision, "--json", "--data-dir", str(served.data)).out
    )
    assert (told["object"], told["id"]) == ("sophia.decision", decision)
    assert told["served_by"] == told["attempts_made"][0]["model"]
    assert told["feedback"] == []


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_decision_that_is_none_is_refused(served: Served, run: Run, command: str) -> None:
    data = ("--data-dir", str(served.data))
    ran = run("decisions", command, "dec-1", *data)
    assert ran.code == 2 and "16 hexadecimal digits" in ran.err
    ran = run("decisions", command, "dec-0000000000000000", *data)
    assert ran.code == 1 and "no decision dec-0000000000000000" in ran.err


def test_decisions_are_verified(served: Served, run: Run, run_process: Run, decision: str) -> None:
    """One by the priors comes out the same; one that was not rated has nothing to differ in."""
    data = ("--data-dir", str(served.data))
    unrated = decide(served, run, "sophia/heuristic")
    for id, same, unlearned in ((decision, 1, 0), (unrated, 0, 1)):
        ran = run("decisions", "verify", id, "--json", *data)
        assert ran.code == 0, ran.err
        told = json.loads(ran.out)
        assert told["different"] == []
        assert (told["same"], told["unlearned"]) == (same, unlearned)
    told = json.loads(run("decisions", "verify", "--json", *data).out)
    assert told["different"] == [] and told["same"] >= 1 and told["unlearned"] >= 1
    assert "0 differ" in run_process("decisions", "verify", *data).out


def test_a_model_is_shown_with_what_was_learned_of_it(served: Served, run: Run) -> None:
    data = ("--data-dir", str(served.data))
    told = json.loads(run("models", "show", "gpt-4o-mini", "--json", *data).out)
    assert told["id"] == "openai/gpt-4o-mini" and "tools" in told["parameters"]
    (fast,) = json.loads(run("models", "list", "--json", "--role", "fast", *data).out)
    told = json.loads(run("models", "show", fast["id"], "--json", *data).out)
    assert [arm["arm"] for arm in told["arms"]][:1] == [fast["id"]]
    ran = run("models", "show", fast["id"], *data, COLUMNS="80")
    assert ran.code == 0 and "context length" in ran.out and "±" in ran.out


def test_a_model_that_is_none_is_answered_with_similar_ones(run: Run) -> None:
    ran = run("models", "show", "openai/gpt-4o-mni")
    assert ran.code == 1
    assert "Did you mean openai/gpt-4o-mini" in ran.err


def test_the_policy_is_shown_with_its_history(served: Served, run: Run) -> None:
    data = ("--data-dir", str(served.data))
    assert json.loads(run("policy", "show", "--json", *data).out)[0]["quality"] > 0
    (step, *_) = json.loads(run("policy", "history", "--json", *data).out)
    assert (step["reason"], step["kept"]) == ("priors alone", True)
    assert "priors alone" in run("policy", "history", *data).out


def test_the_policy_is_shown_with_outcomes_since_the_last_snapshot(
    served: Served, run: Run
) -> None:
    """A server writes a snapshot after hundreds of outcomes; the command reads the ledger too."""
    data = ("--data-dir", str(served.data))
    decision = decide(served, run, "sophia/auto")
    headers = {"Authorization": f"Bearer {served.key}", "Content-Type": "application/json"}
    body = json.dumps({"decision_id": decision, "score": 0.0}).encode()
    urlopen(Request(f"{served.base_url}/feedback", body, headers)).close()  # noqa: S310
    ran = run("policy", "show", *data, COLUMNS="80")
    words = " ".join(ran.out.split())
    assert re.search(r"by outcomes of key \w+, 1 until now; they decide from 100 on", words), words
    rows = [line for line in ran.out.splitlines() if "±" in line]
    # Each row has its numbers in full, on a narrow terminal too.
    assert rows and all(
        re.search(r"/\S+ +0\.\d\d ± 0\.\d\d +\$[\d.]+ +[\d.]+ s +\d+ *$", row) for row in rows
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("retrain",), 1, "learning.share_keys"),
        (("retrain", "--dry-run"), 1, "learning.share_keys"),
        (("rollback",), 1, "sophia policy history"),
        (("rollback", "ffff"), 1, "sophia policy history"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_way_on(
    served: Served, run: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ran = run("policy", *arguments, "--data-dir", str(served.data))
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err


def test_a_decision_whose_first_choice_failed_names_the_model_that_answered(
    served: Served, run: Run, decision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run("decisions", "show", decision, "--json", "--data-dir", str(served.data))
    told = json.loads(shown.out)
    print_decision(json.dumps(told).encode())
    assert "the first choice failed" not in capsys.readouterr().out
    print_decision(json.dumps(told | {"served_by": "acme/other"}).encode())
    assert "acme/other answered: the first choice failed." in capsys.readouterr().out
