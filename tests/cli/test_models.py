"""`sophia models` and `sophia models refresh`."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
from canned_answers import answering
from terminal import Run


def _listing() -> dict[str, object]:
    return json.loads((files("sophia.catalogue") / "data/models.json").read_bytes())


def test_models_shows_the_profiles_first_and_how_many_there_are(run: Run) -> None:
    """The first table holds what Sophia chooses among; the rest is cut at 50."""
    ran = run("models", "list", COLUMNS="80")
    assert ran.code == 0
    assert ran.out.index("Sophia chooses among") < ran.out.index("asked for by name")
    assert "complex" in ran.out
    assert "50 of" in ran.out
    assert "--all" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_models_shows_the_pool_and_not_every_model_with_a_role(run: Run, tmp_path: Path) -> None:
    """A denied model and one with limits of its own are served by name alone."""
    text = "routing: {pool: {deny: [xiaomi/*], models: [anthropic/claude-opus-4.1]}}"
    (tmp_path / "sophia.yaml").write_text(text)
    chosen, _, named = run("models", "list", "--all", COLUMNS="120").out.partition("asked for by")
    assert "anthropic/claude-opus-4.1 " in chosen and "xiaomi/" not in chosen
    assert ":free" not in chosen and ":free" in named


def test_batch_prices_are_listed_apart(run: Run) -> None:
    """Such a model answers within a day, so it is no cheaper kind of the same."""
    before, _, batches = run("models", "list", "--all").out.partition("in batches")
    assert ":batch" not in before and ":batch" in batches


def test_models_leaves_no_folder_behind(run: Run, tmp_path: Path) -> None:
    """Looking makes nothing."""
    assert run("models", "list").code == 0
    assert list(tmp_path.iterdir()) == []


def test_every_filter_narrows_the_list(run: Run) -> None:
    """Filters are all true of every model that is shown."""
    filters = ["--max-price", "1", "--min-context", "100000", "--parameter", "tools"]
    ran = run("models", "list", "--json", "--search", "GPT", *filters)
    found = json.loads(ran.out)
    assert found
    for model in found:
        assert "gpt" in f"{model['id']} {model['name']}".lower()
        assert model["completion_usd_per_mtok"] <= 1
        assert model["context_length"] >= 100_000
        assert "tools" in model["parameters"]


def test_a_role_finds_its_model_and_a_wrong_one_lists_the_roles(run: Run) -> None:
    """Roles are few; a mistyped one is answered with all of them."""
    found = json.loads(run("models", "list", "--json", "--role", "Fast").out)
    assert [model["role"] for model in found] == ["fast"]
    ran = run("models", "list", "--role", "fats")
    assert ran.code == 2
    assert "complex reasoning, fast, code" in ran.err


def test_models_that_nobody_fits_are_none(run: Run) -> None:
    """An empty list is no error."""
    ran = run("models", "list", "--search", "no such thing")
    assert ran.code == 0
    assert "No model fits" in ran.out


def test_refresh_keeps_the_listing_and_tells_what_changed(run: Run, tmp_path: Path) -> None:
    """What was fetched is what `sophia models list` shows from then on."""
    listing = _listing()
    rows = listing["data"]
    assert isinstance(rows, list)
    gone = next(row["id"] for row in rows if row["id"].startswith("aion-labs/"))
    rows[:] = [row for row in rows if row["id"] != gone]
    rows.append(rows[0] | {"id": "new/model"})
    with answering(200, "application/json", json.dumps(listing).encode()) as url:
        ran = run("models", "refresh", "--data-dir", "kept", OPENROUTER_BASE_URL=url)
    assert ran.code == 0, ran.err
    assert "1 added: new/model" in ran.out
    assert f"1 removed: {gone}" in ran.out
    assert "0 repriced" in ran.out
    shown = json.loads(run("models", "list", "--json", "--data-dir", "kept").out)
    assert "new/model" in {model["id"] for model in shown}
    assert "refreshed" in run("models", "list", "--data-dir", "kept").out


def test_ids_are_shown_as_they_are(run: Run) -> None:
    """What looks like markup or an emoji is part of a name."""
    listing = _listing()
    rows = listing["data"]
    assert isinstance(rows, list)
    rows.append(rows[0] | {"id": "new/[bold]m[/x]:smile:"})
    with answering(200, "application/json", json.dumps(listing).encode()) as url:
        assert run("models", "refresh", "--data-dir", "kept", OPENROUTER_BASE_URL=url).code == 0
    assert "new/[bold]m[/x]:smile:" in run("models", "list", "--all", "--data-dir", "kept").out


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b'{"data":[]}', "no row"),
        (200, b"<html>", "not a list of models"),
        (401, b'{"error":{"message":"No auth","code":401}}', "No auth"),
    ],
)
def test_a_bad_listing_is_refused_and_the_last_good_one_stays(
    run: Run, tmp_path: Path, status: int, body: bytes, told: str
) -> None:
    """Nothing is kept that Sophia could not serve with."""
    with answering(status, "application/json", body) as url:
        ran = run("models", "refresh", "--data-dir", "kept", OPENROUTER_BASE_URL=url)
    assert ran.code == 1
    assert told in ran.err
    assert "last good one stays: bundled" in ran.err
    assert not (tmp_path / "kept" / "models.json").exists()


def test_refresh_without_a_network_says_why(run: Run) -> None:
    """No traceback when nobody is there."""
    ran = run("models", "refresh", OPENROUTER_BASE_URL="http://127.0.0.1:1/v1")
    assert ran.code == 1
    assert "Cannot connect to 127.0.0.1:1" in ran.err
