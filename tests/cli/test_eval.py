"""`sophia eval` on tables of one's own and on a ledger, as somebody at a terminal runs it."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from terminal import Run

from logged_decisions import fill
from outcome_tables import table, write
from sophia.cli.chart import Frame, Series, chart


def test_a_table_is_evaluated_and_drawn(run: Run, tmp_path: Path) -> None:
    """Tables, curve, pictures and JSON say the same, within the terminal's width."""
    write(tmp_path / "mine", table(60))
    ran = run(
        "eval", "--table", "mine", "--policy", "task_mean",
        "--figures", "pictures", "--json", "out.json", COLUMNS="80",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    for words in ("60 questions", "b/dear", "oracle", ": told task", "a task_mean", "Quality against"):
        assert words in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    (told,) = json.loads((tmp_path / "out.json").read_text())
    (judged,) = told["policies"]
    assert judged["policy"] == "task_mean"
    assert set(judged["measures"]) == {
        "gap", "c100", "peak_gain", "quality_at_25pct_cost", "harm",
    }  # fmt: skip
    assert f"{judged['measures']['gap']['value']:.3f}" in ran.out
    assert judged["curve"]["cost"] == sorted(judged["curve"]["cost"])
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == [
        "mine-calibration.png", "mine-calibration.svg", "mine-curve.png", "mine-curve.svg",
    ]  # fmt: skip
    assert (tmp_path / "pictures" / "mine-curve.png").read_bytes().startswith(b"\x89PNG")


def test_two_models_are_also_measured_by_calls(run: Run, tmp_path: Path) -> None:
    """In a wide terminal every measure has its interval."""
    made = table(60).only(("a/cheap", "b/dear"))
    write(tmp_path / "two", replace(made, arms=("a/cheap [high]", "b/dear:free:")))
    ran = run("eval", "--table", "two", "--policy", "task_mean", COLUMNS="124")
    assert ran.code == 0, ran.err
    assert "APGR" in ran.out and "CPT80" in ran.out
    assert "a/cheap [high]" in ran.out and "b/dear:free:" in ran.out
    assert "[" in ran.out.partition("task_mean")[2]
    assert max(map(len, ran.out.splitlines())) <= 124


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "--table FOLDER or --ledger"),
        (("--table", "x", "--ledger"), 2, "one of the two"),
        (("--table", "x", "--policy", "oracle"), 2, "they are: hierarchical, task_mean"),
        (("--table", "nowhere"), 1, "nowhere is no folder"),
        (("--ledger",), 1, "No ledger at"),
    ],
)
def test_a_wrong_request_is_told_what_is_right(
    run: Run, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ran = run("eval", *arguments)
    assert ran.code == code
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_a_folder_of_another_schema_is_refused_with_the_remedy(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", table(20))
    parquet.write_table(pa.table({"id": [1], "score": [0.5]}), folder / "outcomes.parquet")
    ran = run("eval", "--table", "mine")
    assert ran.code == 1
    assert "no column query_id, model; its columns are id, score" in ran.err
    assert "docs/how-to/evaluate.md" in ran.err


def test_too_few_questions_are_refused(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "mine", table(20))
    ran = run("eval", "--table", "mine", "--policy", "task_mean")
    assert ran.code == 1
    assert "20 questions" in ran.err


@pytest.mark.parametrize("package", ["pyarrow", "sklearn", "matplotlib"])
def test_without_the_extra_its_name_is_told(run: Run, tmp_path: Path, package: str) -> None:
    """A plain installation lacks these packages; a stand-in fails to import as they would."""
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / f"{package}.py").write_text("raise ModuleNotFoundError(__name__)")
    ran = run("eval", "--table", ".", "--figures", "out", PYTHONPATH=str(tmp_path / "lacking"))
    assert ran.code == 1
    assert f"needs {package}" in ran.err
    assert "pip install 'sophia-router[learn]'" in ran.err


async def test_a_ledger_is_evaluated(run: Run, tmp_path: Path) -> None:
    """Estimates with their worth, and a refusal with its reason."""
    now = int(time.time() * 1000) - 60_000
    await fill(tmp_path / "sophia.db", now, 1600, 0.9)
    ran = run("eval", "--ledger", "--data-dir", str(tmp_path), "--json", "out.json", COLUMNS="80")
    assert ran.code == 0, ran.err
    said = " ".join(ran.out.split())
    assert "Mean score of those who spoke 0." in said
    assert "weighed for the silent by request and model 0." in said
    for words in ("1,600 learned decisions", "as logged", "task_mean", "always b/dear", "refused"):
        assert words in ran.out
    assert "No number for always c/weak: the log is worth" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    told = json.loads((tmp_path / "out.json").read_text())
    kinds = {one["policy"]: one["verdict"]["type"] for one in told["targets"]}
    assert kinds["always c/weak"] == "Refused"
    assert kinds["task_mean"] == "Assessment"

    old = run("eval", "--ledger", "--days", "0", "--data-dir", str(tmp_path))
    assert old.code == 1
    assert "/v1/feedback" in old.err


def test_curves_are_drawn_where_their_points_are() -> None:
    """The last series lies on top; what is outside the frame is left out."""
    frame = Frame((0.0, 10.0), (0.0, 2.0), 11, 3)
    rising, flat = Series("a", [0, 10], [0, 2]), Series("b", [5, 20], [1, 1])
    assert chart([flat, rising], frame) == ["        aaa", "   aaaaabbb", "aaa"]
    assert chart([rising, flat], frame) == ["        aaa", "   aabbbbbb", "aaa"]
    assert chart([Series("c", [5.0], [5.0])], frame) == ["", "", ""]


def test_on_a_logarithmic_scale_each_factor_is_as_wide() -> None:
    frame = Frame((1.0, 100.0), (0.0, 1.0), 21, 1, logarithmic=True)
    marks = [Series("x", [x], [0.5]) for x in (0.0, 1.0, 10.0, 100.0)]
    assert chart(marks, frame) == ["x         x         x"]
