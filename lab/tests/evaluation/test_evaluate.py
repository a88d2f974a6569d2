"""`python -m lab.evaluate` as run from a terminal on a user's table."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from terminal import Run

from outcome_tables import make_table, write_table

ROOT = Path(__file__).parents[3]


def test_a_table_is_evaluated_and_plotted(run: Run, tmp_path: Path) -> None:
    """Terminal output, figures and JSON agree, within the terminal's width."""
    write_table(tmp_path / "mine", make_table(60))
    ran = run(
        "lab.evaluate", "--table", "mine", "--policy", "task_mean",
        "--figures", "pictures", "--json", "out.json", COLUMNS="80",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    for words in ("60 questions", "b/expensive", "oracle", "true task", "task_mean"):
        assert words in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    (report,) = json.loads((tmp_path / "out.json").read_text())
    (result,) = report["policies"]
    assert result["policy"] == "task_mean"
    assert set(result["measures"]) == {
        "gap", "c100", "peak_gain", "quality_at_25pct_cost", "harm",
    }  # fmt: skip
    assert f"{result['measures']['gap']['value']:.3f}" in ran.out
    assert result["curve"]["cost"] == sorted(result["curve"]["cost"])
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == [
        "mine-calibration.png", "mine-calibration.svg", "mine-curve.png", "mine-curve.svg",
    ]  # fmt: skip
    assert (tmp_path / "pictures" / "mine-curve.png").read_bytes().startswith(b"\x89PNG")


def test_two_models_also_have_weak_strong_metrics(run: Run, tmp_path: Path) -> None:
    """In a wide terminal every measure has its interval."""
    made = make_table(60).select_arms(("a/cheap", "b/expensive"))
    write_table(tmp_path / "two", replace(made, arms=("a/cheap [high]", "b/expensive:free:")))
    ran = run("lab.evaluate", "--table", "two", "--policy", "task_mean", COLUMNS="124")
    assert ran.code == 0, ran.err
    assert "APGR" in ran.out and "CPT80" in ran.out
    assert "a/cheap [high]" in ran.out and "b/expensive:free:" in ran.out
    assert "[" in ran.out.partition("task_mean")[2]
    assert max(map(len, ran.out.splitlines())) <= 124


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "--table"),
        (("--table", "x", "--policy", "oracle"), 2, "they are: hierarchical, task_mean"),
        (("--table", "nowhere"), 1, "nowhere is not a folder"),
    ],
)
def test_a_wrong_argument_gets_a_helpful_message(
    run: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ran = run("lab.evaluate", *arguments)
    assert ran.code == code
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_a_folder_of_another_schema_is_refused_with_the_fix(run: Run, tmp_path: Path) -> None:
    folder = write_table(tmp_path / "mine", make_table(20))
    parquet.write_table(pa.table({"id": [1], "score": [0.5]}), folder / "outcomes.parquet")
    ran = run("lab.evaluate", "--table", "mine")
    assert ran.code == 1
    assert "no column query_id, model; its columns are id, score" in ran.err
    assert "docs/how-to/evaluate.md" in ran.err


def test_too_few_questions_are_refused(run: Run, tmp_path: Path) -> None:
    write_table(tmp_path / "mine", make_table(20))
    ran = run("lab.evaluate", "--table", "mine", "--policy", "task_mean")
    assert ran.code == 1
    assert "20 questions" in ran.err


def test_the_example_of_the_how_to_runs(tmp_path: Path) -> None:
    """The commands of docs/how-to/evaluate.md work as written."""
    text = (ROOT / "docs" / "how-to" / "evaluate.md").read_text()
    (code,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "task_mean" in result.stdout and (tmp_path / "pictures/mine-curve.svg").exists()
