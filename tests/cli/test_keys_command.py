"""`sophia keys` on a data folder of its own, and beside a running server."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

from terminal import Run, Served


def listed(run: Run, data: str) -> list[dict[str, Any]]:
    ran = run("keys", "list", "--json", "--data-dir", data)
    assert ran.code == 0, ran.err
    rows: list[dict[str, Any]] = json.loads(ran.out)
    return rows


def test_a_key_is_created_listed_changed_and_revoked(run: Run) -> None:
    """What is not named in an update stays as it was."""
    made = json.loads(
        run("keys", "create", "--name", "ci", "--per-request-usd", "0.5", "--json").out
    )
    assert made["key"].startswith("sk-sph-") and made["id"] in made["key"]
    (row,) = listed(run, "data")
    assert (row["name"], row["scope"], row["explore"]) == ("ci", "inference", True)
    assert (row["daily_budget_usd"], row["per_request_usd"]) == (None, 0.5)
    changed = run(
        *("keys", "update", made["id"], "--name", "nightly", "--daily-budget-usd", "2"),
        "--no-explore",
    )
    assert changed.code == 0, changed.err
    (row,) = listed(run, "data")
    assert (row["name"], row["explore"]) == ("nightly", False)
    assert (row["daily_budget_usd"], row["per_request_usd"]) == (2.0, 0.5)
    assert run("keys", "revoke", made["id"]).code == 0
    assert listed(run, "data")[0]["revoked_ms"] > 0
    assert "revoked" in run("keys", "list").out


def test_a_key_that_is_not_there_cannot_be_changed(run: Run) -> None:
    for arguments in (("update", "nobody", "--name", "x"), ("revoke", "nobody")):
        ran = run("keys", *arguments)
        assert ran.code == 1
        assert "sophia keys list" in ran.err


def test_an_update_without_a_change_says_so(run: Run) -> None:
    ran = run("keys", "update", "some")
    assert ran.code == 2
    assert "Nothing to change" in ran.err


def test_a_budget_below_zero_is_refused(run: Run) -> None:
    for command in (("create", "--name", "x"), ("update", "some")):
        ran = run("keys", *command, "--daily-budget-usd", "-1")
        assert ran.code == 2
        assert "--daily-budget-usd" in ran.err


def test_a_running_server_notices_an_update_within_a_second(served: Served, run: Run) -> None:
    """A budget of nothing refuses the next request; the limit taken back allows it."""
    data = str(served.data)
    made = json.loads(run("keys", "create", "--name", "x", "--json", "--data-dir", data).out)
    assert status(served, made["key"]) == 200
    for budget, expected in (("0", 402), ("5", 200)):
        ran = run("keys", "update", made["id"], "--daily-budget-usd", budget, "--data-dir", data)
        assert ran.code == 0, ran.err
        deadline = time.monotonic() + 3
        while (answered := status(served, made["key"])) != expected:
            assert time.monotonic() < deadline, answered


def status(served: Served, key: str) -> int:
    body = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    url = f"{served.base_url}/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
