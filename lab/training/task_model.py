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
from lab.training.far_texts import make_far_texts
from lab.training.prompt_streams import (
    STREAM_LENGTH,
    LabelledTexts,
    apply_stream_history,
    measure_history_gain,
)
from lab.training.table_contexts import encode_questions
from lab.training.task_training import (
    TEMPERATURES,
    EncodedTexts,
    TrainingConfig,
    dump_task_model,
    predict_posteriors,
    train_task_model,
)
from sophia.routing.bandit.context.task_model import UNKNOWN_TASK, TaskModel, load_task_model
from sophia.routing.bandit.context.taxonomy import TaskClass

Taxonomy = Mapping[str, "LabelledClass"]

DATA = Path(__file__).parents[2] / "src" / "sophia" / "routing" / "data"
SHIPPABLE = ("zeroeval", "mmlu_pro", "routellm", "paretobandit", "lineage_2025h1")
MAX_TEXTS_PER_CLASS = 60
"""Limit of texts per class and source; more would only make requests look like benchmark tasks."""
FAR_TEXTS = 1500
WRITTEN, FAR = "written", "far"
PROMPTS = Path(__file__).parent / "data"
"""Prompts written for training, by language, and those of another author to test."""
TOOL_TASK = "tool-calling"
TOOLS = 4
"""Largest number of tools of a tool-calling example; one copy of the others has half of it."""
TEXT_TASKS = ("summarisation", "translation", "editing", "extraction", "document-analysis")
MIN_BODY_CHARS = 150
CODE = ("code-writing", "debugging", "code-review", "software-issues")
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
TRAINING_CONFIGS = (TrainingConfig(inverse_penalty=1.0, max_iterations=150, balance_classes=True),)


class LabelledClass(TaskClass, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A class of the taxonomy with patterns of its tasks in tables."""

    table_tasks: tuple[str, ...] = ()


def main() -> None:
    """Train, report and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DATA / "tasks.npz")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--figure", type=Path, help="file for the confusion matrix, SVG")
    options = parser.parse_args()
    taxonomy = read_taxonomy()
    found = [
        *(
            Question(place, text, name)
            for text, (name, place) in read_labelled_texts(
                options.data, taxonomy, MAX_TEXTS_PER_CLASS
            ).items()
        ),
        *(written := read_written_prompts(taxonomy)),
        *lengthen_prompts(written),
        *make_far_questions(),
    ]
    texts = encode_questions(found)
    names = list(taxonomy)
    labels = np.array([_label(names, question.task) for question in found])
    counts = Counter(question.task for question in found)
    report = {"texts": dict(counts), **evaluate_held_out(texts, labels, names, found)}
    model, error = calibrate(train_task_model(texts, labels, names, TRAINING_CONFIGS))
    report["elsewhere"] = {
        source: evaluate_source(model, options.data / source, tasks)
        for source, tasks in HELD_OUT_SOURCES.items()
        if is_table(options.data / source)
    }
    options.out.write_bytes(dump_task_model(model))
    report["test"] = {
        **evaluate_test_prompts(load_task_model(options.out.read_bytes())),
        "ece": round(error, 4),
    }
    if options.figure:
        draw_confusion(options.figure, model)
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


def read_written_prompts(taxonomy: Taxonomy) -> list[Question]:
    """Return the prompts written for training.

    Half of those that need a tool declare some, as do a few of the others.
    """
    found = []
    for path in sorted((PROMPTS / "prompts").glob("*.yaml")):
        prompts = yaml.safe_load(path.read_text())
        for name in taxonomy:
            for at, text in enumerate(prompts.get(name, ())):
                tools = 1 + at % TOOLS if name == TOOL_TASK and at % 2 else 0
                tools = TOOLS // 2 if name != TOOL_TASK and at % 15 == 0 else tools
                found.append(Question(WRITTEN, text, name, tools=tools))
    return found


def lengthen_prompts(written: list[Question], seed: int = 0) -> list[Question]:
    """Return the prompts of tasks on a given text again, each before a long text of others."""
    rng = np.random.default_rng(seed)
    texts = [question.text for question in written if len(question.text) > MIN_BODY_CHARS]
    return [
        Question(WRITTEN, "\n\n".join([question.text, *rng.choice(texts, 3)]), question.task)
        for question in written
        if question.task in TEXT_TASKS
    ]


def make_far_questions() -> list[Question]:
    """Return texts that are no request, for the class `unknown`."""
    english = yaml.safe_load((PROMPTS / "prompts/en.yaml").read_text())
    words = sorted({word for some in english.values() for text in some for word in text.split()})
    return [Question(FAR, text, UNKNOWN_TASK) for text in make_far_texts(FAR_TEXTS, words)]


def _label(names: list[str], task: str) -> int:
    return names.index(task) if task != UNKNOWN_TASK else len(names)


def read_test_prompts() -> tuple[dict[str, list[Question]], list[Question]]:
    """Return the prompts of another author by language, and the far texts."""
    prompts = yaml.safe_load((PROMPTS / "task_test_prompts.yaml").read_text())
    by_language = {
        code: [Question(WRITTEN, text, name) for name, some in classes.items() for text in some]
        for code, classes in {"en": prompts["english"], **prompts["other"]}.items()
    }
    return by_language, [Question(FAR, text, UNKNOWN_TASK) for text in prompts["far"]]


def calibrate(model: TaskModel) -> tuple[TaskModel, float]:
    """Return the model with a calibrated temperature, and its calibration error on test prompts.

    Prompts written for training are harder than requests: their temperature would be too high. So
    each half of the test prompts gives a temperature, the error is measured on the half that did
    not give it, and the model gets the mean of both.
    """
    by_language, _ = read_test_prompts()
    questions = [one for some in by_language.values() for one in some]
    labels = np.array([model.known_tasks.index(one.task) for one in questions])
    texts, halves = encode_questions(questions), np.arange(len(questions)) % 2
    found, sure, right = [], np.empty(len(labels)), np.empty(len(labels))
    for half in range(2):
        fitted, judged = halves == half, halves != half
        errors = []
        for temperature in TEMPERATURES.tolist():
            hot = msgspec.structs.replace(model, temperature=temperature)
            posteriors = predict_posteriors(hot, texts.select(fitted))
            hits = (posteriors.argmax(axis=1) == labels[fitted]).astype(np.float64)
            errors.append((ece(posteriors.max(axis=1), hits), hot))
        found.append(min(errors, key=lambda pair: pair[0])[1])
        posteriors = predict_posteriors(found[-1], texts.select(judged))
        sure[judged] = posteriors.max(axis=1)
        right[judged] = posteriors.argmax(axis=1) == labels[judged]
    mean = float(np.sqrt(found[0].temperature * found[1].temperature))
    return msgspec.structs.replace(model, temperature=mean), ece(sure, right)


def evaluate_test_prompts(model: TaskModel) -> dict[str, object]:
    """Return the results on the prompts that another author wrote: none was trained on."""
    questions, far_questions = read_test_prompts()
    by_language = {code: _judge_prompts(model, some) for code, some in questions.items()}
    english = by_language.pop("en")
    others = [row for rows in by_language.values() for row in rows]
    far = predict_posteriors(model, encode_questions(far_questions))
    confusion: Counter[str] = Counter(
        f"{expected} -> {found}" for expected, found, _ in (*english, *others) if expected != found
    )
    return {
        "english": _accuracy(english),
        "other_languages": _accuracy(others),
        "by_language": {code: _accuracy(rows) for code, rows in by_language.items()},
        "far": len(far_questions),
        "far_unknown": round(float(far[:, -1].mean()), 4),
        "by_class": {
            name: _accuracy([row for row in (*english, *others) if row[0] == name])
            for name in model.known_tasks
        },
        "confused": dict(confusion.most_common(30)),
    }


def draw_confusion(path: Path, model: TaskModel) -> None:
    """Draw which classes the test prompts were taken for, by their own class, in percent."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "sophia"
    from matplotlib import pyplot

    by_language, far = read_test_prompts()
    rows = [row for some in by_language.values() for row in _judge_prompts(model, some)]
    rows += _judge_prompts(model, far)
    place = {name: at for at, name in enumerate(model.classes)}
    counts = np.zeros((len(place), len(place)))
    for expected, found, _ in rows:
        counts[place[expected], place[found]] += 1
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = pyplot.subplots(figsize=(10, 9), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(place)), place, rotation=90, fontsize=7)
    axes.set_yticks(range(len(place)), place, fontsize=7)
    axes.set(xlabel="taken for", ylabel="class of the test prompt")
    for (row, column), share in np.ndenumerate(shares):
        if share >= 5:
            color = "white" if share > 50 else "0.2"
            axes.text(
                column, row, f"{share:.0f}", ha="center", va="center", fontsize=5, color=color
            )
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _judge_prompts(model: TaskModel, questions: list[Question]) -> list[tuple[str, str, float]]:
    """Return the right class of each prompt, the one found, and its probability."""
    posteriors = predict_posteriors(model, encode_questions(questions))
    return [
        (question.task, model.classes[int(row.argmax())], float(row.max()))
        for question, row in zip(questions, posteriors, strict=True)
    ]


def _accuracy(rows: list[tuple[str, str, float]]) -> dict[str, float]:
    right = sum(expected == found for expected, found, _ in rows)
    return {"prompts": len(rows), "correct": round(right / max(len(rows), 1), 4)}


def evaluate_held_out(
    texts: EncodedTexts, labels: np.ndarray, names: list[str], questions: list[Question]
) -> dict[str, object]:
    """Return accuracy and calibration on a held-out fifth of the texts."""
    held = np.array([assign_fold(question.text, 5, seed=1) == 0 for question in questions])
    model = train_task_model(texts.select(~held), labels[~held], names, TRAINING_CONFIGS)
    posteriors = predict_posteriors(model, texts.select(held))
    best = posteriors.argmax(axis=1)
    right = best == labels[held]
    sure = posteriors.max(axis=1)
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
    tables = np.array([question.id not in (WRITTEN, FAR) for question in questions])
    places = [question.id for question in questions if question.id not in (WRITTEN, FAR)]
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
