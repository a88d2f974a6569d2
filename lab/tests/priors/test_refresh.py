"""`python -m lab.priors`: valid files update the priors of new models, others are refused."""

import json
from pathlib import Path

import pytest
from terminal import Run

from lab.evaluation.tables import InvalidTable
from lab.priors.refresh import refresh
from sophia.compose.offline import build_catalogue
from sophia.config import Settings
from sophia.learning.priors.book import (
    PRIORS_FILE,
    SavedPriors,
    build_arm_prior,
    load_shipped_priors,
    read_saved_priors,
)

NEW, NEMO = "openai/gpt-4.1-mini", "mistralai/mistral-nemo"
KINDS = [("code",), ("maths",)]
MODELS = {"openai/gpt-4o-mini": 0.4, "mistralai/mistral-nemo": 0.3, "google/gemini-2.5-flash": 0.6}


def export(path: Path, **more: float) -> None:
    rows = [
        {"benchmark": "gpqa-diamond", "model": model, "accuracy": score, "total_tasks": 198}
        for model, score in (MODELS | more).items()
    ]
    head = {"dataset": "benchmark-leaderboard", "snapshot_date": "2026-11-07"}
    path.write_text(json.dumps({**head, "attribution": "Source: them", "data": rows}))


def test_newer_files_are_used_and_shown_deterministically(run: Run, tmp_path: Path) -> None:
    """The same files give the same priors, whatever was stored before."""
    export(tmp_path / "b.json")
    ran = run("lab.priors", "b.json", "--data-dir", "kept", COLUMNS="80")
    assert ran.code == 0, ran.err
    for words in ("b.json", "2026-11-07", "gpqa-diamond", "Source: them"):
        assert words in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    digests = set()
    for _ in range(2):
        result = json.loads(run("lab.priors", "b.json", "--data-dir", "kept", "--json").out)
        digests.add(
            json.dumps(json.loads((tmp_path / "kept/sandbox/priors.json").read_text())["book"])
        )
        assert result["sources"][0]["arms"] == 3 and len(result["sources"][0]["sha256"]) == 64
    assert len(digests) == 1


def test_a_bad_file_is_named_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    export(tmp_path / "bad.json", **{"acme/invalid": 3.0})
    ran = run("lab.priors", "bad.json", "--data-dir", "kept")
    assert ran.code == 1
    assert "3 is not from 0 to 1" in ran.err and "Nothing was changed" in ran.err
    assert not (tmp_path / "kept/sandbox/priors.json").exists()


def refit(folder: Path, *paths: Path) -> SavedPriors:
    return refresh(folder, paths, build_catalogue(Settings(data_dir=str(folder))), 1)


@pytest.mark.parametrize("best", [0.2, 0.9])
def test_better_scores_give_better_priors(tmp_path: Path, best: float) -> None:
    export(tmp_path / "2026-11-07.json", **{NEW: best})
    shipped, saved = load_shipped_priors(), refit(tmp_path, tmp_path / "2026-11-07.json")
    assert read_saved_priors(tmp_path) == saved
    assert saved.priors.arms[NEW].basis == "measured"
    now, then = (build_arm_prior(book, NEW, KINDS) for book in (saved.priors, shipped))
    assert (now.mean > then.mean).all() == (best > 0.5)
    assert "openrouter 2026-11-07" in saved.priors.sources
    assert set(shipped.sources) < set(saved.priors.sources)
    assert saved.sources[0].file == "2026-11-07.json" and saved.sources[0].as_of == "2026-11-07"


def test_an_index_compares_models_and_does_not_set_the_level(tmp_path: Path) -> None:
    """A low scale of the index hardly moves the prior of an unknown model."""
    levels = {NEW: 9.0, "openai/gpt-4o-mini": 4.0, "google/gemini-2.5-flash": 6.0, NEMO: 2.0}
    rows = [
        {"source": "artificial-analysis", "model_permaslug": model, "coding_index": level}
        for model, level in levels.items()
    ]
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"data": rows, "meta": {"as_of": "2026-06-03"}}))
    saved = refit(tmp_path, path)
    now, then = (
        build_arm_prior(book, "acme/unknown", KINDS).mean
        for book in (saved.priors, load_shipped_priors())
    )
    assert now == pytest.approx(then, abs=0.02)
    better, worse = (build_arm_prior(saved.priors, model, KINDS).mean[0] for model in (NEW, NEMO))
    assert better > worse


def test_a_bad_file_changes_nothing_even_beside_a_good_one(tmp_path: Path) -> None:
    export(tmp_path / "good.json")
    refit(tmp_path, tmp_path / "good.json")
    before = (tmp_path / PRIORS_FILE).read_bytes()
    export(tmp_path / "bad.json", **{"acme/invalid": 1.1})
    with pytest.raises(InvalidTable, match="not from 0 to 1"):
        refit(tmp_path, tmp_path / "good.json", tmp_path / "bad.json")
    assert (tmp_path / PRIORS_FILE).read_bytes() == before
