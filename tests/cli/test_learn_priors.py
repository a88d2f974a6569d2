"""`sophia learn --priors`, as somebody at a terminal runs it."""

import json
from pathlib import Path

from terminal import Run

MODELS = {"openai/gpt-4o-mini": 0.4, "mistralai/mistral-nemo": 0.3, "google/gemini-2.5-flash": 0.6}


def export(path: Path, **more: float) -> None:
    rows = [
        {"benchmark": "gpqa-diamond", "model": model, "accuracy": score, "total_tasks": 198}
        for model, score in (MODELS | more).items()
    ]
    head = {"dataset": "benchmark-leaderboard", "snapshot_date": "2026-11-07"}
    path.write_text(json.dumps({**head, "attribution": "Source: them", "data": rows}))


def test_newer_files_are_taken_shown_and_left(run: Run, tmp_path: Path) -> None:
    """The same files always give the same priors, whatever was kept before."""
    export(tmp_path / "b.json")
    ran = run("learn", "--priors", "b.json", "--data-dir", "kept", COLUMNS="80")
    assert ran.code == 0, ran.err
    for words in ("b.json", "2026-11-07", "gpqa-diamond", "Source: them"):
        assert words in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    seals = set()
    for _ in range(2):
        told = json.loads(run("learn", "--priors", "b.json", "--data-dir", "kept", "--json").out)
        seals.add(json.dumps(json.loads((tmp_path / "kept/priors.json").read_text())["book"]))
        assert told["sources"][0]["arms"] == 3 and len(told["sources"][0]["sha256"]) == 64
    assert len(seals) == 1
    assert "again" in run("learn", "--priors", "shipped", "--data-dir", "kept").out
    assert not (tmp_path / "kept/priors.json").exists()
    assert "as they were" in run("learn", "--priors", "shipped", "--data-dir", "kept").out


def test_a_bad_file_is_named_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    export(tmp_path / "bad.json", **{"acme/liar": 3.0})
    ran = run("learn", "--priors", "bad.json", "--data-dir", "kept")
    assert ran.code == 1
    assert "3 is not from 0 to 1" in ran.err and "Nothing was changed" in ran.err
    assert not (tmp_path / "kept/priors.json").exists()
    both = run("learn", "--priors", "bad.json", "--priors", "shipped", "--data-dir", "kept")
    assert both.code == 2
