"""Train the task model from outcome tables that may ship, and write it into the package.

    python -m lab.training.task_model --data DIR [--out FILE] [--report FILE]

Deterministic: the same tables give the same bytes.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import msgspec
import numpy as np
import yaml

from lab.evaluation.measures import ece
from lab.evaluation.tables import Question, assign_fold, is_table, read_table
from lab.training.prompt_streams import (
    STREAM_LENGTH,
    LabelledTexts,
    apply_stream_history,
    measure_history_gain,
)
from lab.training.table_contexts import encode_questions
from lab.training.task_training import (
    EncodedTexts,
    TrainingConfig,
    dump_task_model,
    predict_posteriors,
    train_task_model,
)
from sophia.routing.bandit.context.task_model import TaskModel
from sophia.routing.bandit.context.taxonomy import TaskClass

Taxonomy = Mapping[str, "LabelledClass"]

DATA = Path(__file__).parents[2] / "src" / "sophia" / "routing" / "data"
SHIPPABLE = ("zeroeval", "mmlu_pro", "routellm", "paretobandit", "lineage_2025h1")
MAX_TEXTS_PER_CLASS = 300
"""Limit of texts per class and source; more would only raise the class's base rate."""
EXAMPLE_COPIES = 20
WRITTEN = "written"
TOOL_TASK = "tool-calling"
TOOLS = 4
"""Largest number of tools of a tool-calling example; one copy of the others has half of it."""
CODE = ("code-writing", "code-reasoning", "debugging", "code-review", "computer-science")
HELD_OUT_SOURCES = {
    "bfcl": {"*": (TOOL_TASK,)},
    "routerbench_lite": {
        "mbpp": ("code-writing",),
        "winogrande": ("common-sense",),
        "arc*": ("facts", "physics-and-engineering", "chemistry", "biology", "explanations"),
    },
    "swebench_verified": {"*": CODE},
}
"""Held-out sources, with the classes that count as right for their tasks."""
TRAINING_CONFIGS = (
    TrainingConfig(inverse_penalty=0.3, max_iterations=60, use_words=False, balance_classes=True),
)
"""Without words and with balanced classes; otherwise requests are classified as benchmark tasks."""


class LabelledClass(TaskClass, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A class of the taxonomy with patterns of its tasks in tables, and written examples."""

    table_tasks: tuple[str, ...] = ()
    example_requests: tuple[str, ...] = ()


def main() -> None:
    """Train, report and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DATA / "tasks.npz")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    taxonomy = read_taxonomy()
    found = [
        *(
            Question(place, text, name)
            for text, (name, place) in read_labelled_texts(
                options.data, taxonomy, MAX_TEXTS_PER_CLASS
            ).items()
        ),
        *build_examples(taxonomy),
    ]
    texts = encode_questions(found)
    names = list(taxonomy)
    labels = np.array([names.index(question.task) for question in found])
    counts = Counter(question.task for question in found)
    report = {"texts": dict(counts), **evaluate_held_out(texts, labels, names, found)}
    model = train_task_model(texts, labels, names, TRAINING_CONFIGS)
    report["elsewhere"] = {
        source: evaluate_source(model, options.data / source, tasks)
        for source, tasks in HELD_OUT_SOURCES.items()
        if is_table(options.data / source)
    }
    options.out.write_bytes(dump_task_model(model))
    text = json.dumps(report, indent=1)
    if options.report:
        options.report.write_text(text + "\n")
    sys.stdout.write(text + "\n")


def read_taxonomy() -> Taxonomy:
    """Return the packaged taxonomy with its labels. Raises msgspec.ValidationError."""
    text = (DATA / "taxonomy.yaml").read_text()
    return msgspec.convert(yaml.safe_load(text), dict[str, LabelledClass])


def find_task_class(taxonomy: Taxonomy, task: str) -> str | None:
    """Return the class of a table's `task`: the first with a pattern that matches it, or None."""
    for name, kind in taxonomy.items():
        if any(fnmatch(task, pattern) for pattern in kind.table_tasks):
            return name
    return None


def read_labelled_texts(data: Path, taxonomy: Taxonomy, limit: int) -> dict[str, tuple[str, str]]:
    """Return the class of each text of the shippable sources, and its `source:task`."""
    from pyarrow import parquet

    found: dict[str, tuple[str, str]] = {}
    for source in SHIPPABLE:
        rows = parquet.read_table(data / source / "queries.parquet").to_pylist()
        taken: defaultdict[str, int] = defaultdict(int)
        for row in sorted(rows, key=lambda row: assign_fold(row["query_text"], 1 << 32)):
            name = find_task_class(taxonomy, row["task"])
            if name is not None and taken[name] < limit and row["query_text"] not in found:
                taken[name] += 1
                found[row["query_text"]] = name, f"{source}:{row['task']}"
    return found


def build_examples(taxonomy: Taxonomy) -> list[Question]:
    """Return the written examples, repeated because they are few."""
    return [
        Question(WRITTEN, seed, name, tools=_tools(name, copy))
        for name, kind in taxonomy.items()
        for seed in kind.example_requests
        for copy in range(EXAMPLE_COPIES)
    ]


def _tools(name: str, copy: int) -> int:
    if name == TOOL_TASK:
        return 1 + copy % TOOLS
    return TOOLS // 2 if copy == 0 else 0


def evaluate_held_out(
    texts: EncodedTexts, labels: np.ndarray, names: list[str], questions: list[Question]
) -> dict[str, object]:
    """Return accuracy and calibration on a held-out fifth of the texts."""
    held = np.array([assign_fold(question.text, 5, seed=1) == 0 for question in questions])
    model = train_task_model(texts.select(~held), labels[~held], names, TRAINING_CONFIGS)
    posteriors = predict_posteriors(model, texts.select(held))
    best = posteriors[:, :-1].argmax(axis=1)
    right = best == labels[held]
    sure = posteriors[:, :-1].max(axis=1)
    written = np.array([question.id == WRITTEN for question in questions])[held]
    by_class = {
        name: round(float(right[labels[held] == at].mean()), 3)
        for at, name in enumerate(names)
        if (labels[held] == at).any()
    }
    return {
        "held_out": int(held.sum()),
        "accuracy": round(float(right.mean()), 4),
        "accuracy_on_written": round(float(right[written].mean()), 4),
        "accuracy_on_tables": round(float(right[~written].mean()), 4),
        "accuracy_by_class": by_class,
        "ece": round(ece(sure, right.astype(np.float64)), 4),
        "unknown": round(float(posteriors[:, -1].mean()), 4),
        "under_one_prompt": evaluate_streams(
            posteriors, labels[held], [one for one, out in zip(questions, held, strict=True) if out]
        ),
    }


def evaluate_streams(
    posteriors: np.ndarray, labels: np.ndarray, questions: list[Question]
) -> dict[str, object]:
    """Return accuracy and loss under one system prompt, without and with its history."""
    tables = np.array([question.id != WRITTEN for question in questions])
    places = [question.id for question in questions if question.id != WRITTEN]
    sources = [place.partition(":")[0] for place in places]
    found = measure_history_gain(LabelledTexts(posteriors[tables], labels[tables], places, sources))
    return {
        kind: {
            "alone": [round(one, 3) for one in value.without_history],
            "with history": [round(one, 3) for one in value.with_history],
        }
        for kind, value in found.items()
    }


def evaluate_source(
    model: TaskModel, folder: Path, tasks: Mapping[str, tuple[str, ...]]
) -> dict[str, object]:
    """Return accuracy and calibration on a source that was not trained on."""
    questions = read_table(folder).questions
    posteriors = predict_posteriors(model, encode_questions(questions))
    best = posteriors[:, :-1].argmax(axis=1)
    accepted = [
        next(names for pattern, names in tasks.items() if fnmatch(question.task, pattern))
        for question in questions
    ]
    right = np.array(
        [model.known_tasks[at] in names for at, names in zip(best, accepted, strict=True)]
    )
    # Streams of each task's questions, as under a system prompt of its own.
    updated = posteriors.copy()
    tasks_by_row = np.array([question.task for question in questions])
    for task in sorted(set(tasks_by_row)):
        rows = np.flatnonzero(tasks_by_row == task)
        for begin in range(0, len(rows), STREAM_LENGTH):
            updated[rows[begin : begin + STREAM_LENGTH]] = apply_stream_history(
                posteriors[rows[begin : begin + STREAM_LENGTH]]
            )
    best_with_history = updated[:, :-1].argmax(axis=1)
    right_with_history = np.array(
        [
            model.known_tasks[at] in names
            for at, names in zip(best_with_history, accepted, strict=True)
        ]
    )
    taken = Counter(model.known_tasks[at] for at in best)
    return {
        "questions": len(questions),
        "accuracy": round(float(right.mean()), 4),
        "accuracy_under_one_prompt": round(float(right_with_history.mean()), 4),
        "ece": round(ece(posteriors[:, :-1].max(axis=1), right.astype(np.float64)), 4),
        "unknown": round(float(posteriors[:, -1].mean()), 4),
        "taken_for": dict(taken.most_common(5)),
    }


if __name__ == "__main__":
    main()
