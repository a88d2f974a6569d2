"""Train the task model from outcome tables that may ship, and write it into the package.

    python scripts/build_task_model.py --data DIR [--out FILE] [--report FILE]

Deterministic: the same tables give the same bytes. Needs the extra `learn`.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from sophia.learning.measures import ece
from sophia.learning.prompt_streams import LENGTH, recalled, worth
from sophia.learning.prompt_streams import Texts as Streamed
from sophia.learning.table_sights import prompt_of
from sophia.learning.tables import Question, fold_of, is_table, read_table
from sophia.learning.task_training import Texts, Training, posteriors, train_tasks
from sophia.routing.embedding import read_embedding
from sophia.routing.features import extract
from sophia.routing.nouns import Hints
from sophia.routing.sight import embed, features_of
from sophia.routing.tasks import TaskModel
from sophia.routing.taxonomy import Taxonomy, class_of, read_taxonomy

DATA = Path(__file__).parent.parent / "src" / "sophia" / "routing" / "data"
SHIPPABLE = ("zeroeval", "mmlu_pro", "routellm", "paretobandit", "lineage_2025h1")
MOST = 300
"""Texts of one class and source; more would teach nothing but that this class is usual."""
SEED_COPIES = 20
WRITTEN = "written"
TOOL_TASK = "tool-calling"
TOOLS = 4
"""Requests that call tools come with up to so many; of the other seeds one copy does too."""
CODE = ("code-writing", "code-reasoning", "debugging", "code-review", "computer-science")
ELSEWHERE = {
    "bfcl": {"*": (TOOL_TASK,)},
    "routerbench_lite": {
        "mbpp": ("code-writing",),
        "winogrande": ("common-sense",),
        "arc*": ("facts", "physics-and-engineering", "chemistry", "biology", "explanations"),
    },
    "swebench_verified": {"*": CODE},
}
"""Sources that nothing is learned from, and the classes that their tasks may be taken for."""
TRAININGS = (Training(strength=0.3, patience=60, with_bag=False, balanced=True),)
"""Words and rare classes: with either left as it is, a request is taken for a benchmark's."""


def main() -> None:
    """Train, report and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DATA / "tasks.npz")
    parser.add_argument("--report", type=Path)
    chosen = parser.parse_args()
    taxonomy = read_taxonomy((DATA / "taxonomy.yaml").read_text())
    found = [
        *(
            Question(place, text, name)
            for text, (name, place) in labelled(chosen.data, taxonomy, MOST).items()
        ),
        *seeds(taxonomy),
    ]
    texts = texts_of(found)
    names = list(taxonomy)
    labels = np.array([names.index(question.task) for question in found])
    counts = Counter(question.task for question in found)
    report = {"texts": dict(counts), **held_out(texts, labels, names, found)}
    model = train_tasks(texts, labels, names, TRAININGS)
    report["elsewhere"] = {
        source: elsewhere(model, chosen.data / source, tasks)
        for source, tasks in ELSEWHERE.items()
        if is_table(chosen.data / source)
    }
    chosen.out.write_bytes(model.dump())
    told = json.dumps(report, indent=1)
    if chosen.report:
        chosen.report.write_text(told + "\n")
    sys.stdout.write(told + "\n")


def labelled(data: Path, taxonomy: Taxonomy, most: int) -> dict[str, tuple[str, str]]:
    """Return the class of each text of the shippable sources, and its `source:task`."""
    from pyarrow import parquet

    found: dict[str, tuple[str, str]] = {}
    for source in SHIPPABLE:
        rows = parquet.read_table(data / source / "queries.parquet").to_pylist()
        taken: defaultdict[str, int] = defaultdict(int)
        for row in sorted(rows, key=lambda row: fold_of(row["query_text"], 1 << 32)):
            name = class_of(taxonomy, row["task"])
            if name is not None and taken[name] < most and row["query_text"] not in found:
                taken[name] += 1
                found[row["query_text"]] = name, f"{source}:{row['task']}"
    return found


def seeds(taxonomy: Taxonomy) -> list[Question]:
    """Return the written examples, as often as makes up for their being few."""
    return [
        Question(WRITTEN, seed, name, tools=_tools(name, copy))
        for name, kind in taxonomy.items()
        for seed in kind.seeds
        for copy in range(SEED_COPIES)
    ]


def _tools(name: str, copy: int) -> int:
    if name == TOOL_TASK:
        return 1 + copy % TOOLS
    return TOOLS // 2 if copy == 0 else 0


def texts_of(questions: Sequence[Question]) -> Texts:
    """Return what is known of questions."""
    embedding = read_embedding((DATA / "embedding.npz").read_bytes())
    ids, vectors, features = [], [], []
    for question in questions:
        prompt = prompt_of(question)
        found, vector = embed(embedding, prompt)
        ids.append(found)
        vectors.append(vector)
        features.append(features_of(prompt, extract(prompt, Hints()), Hints()))
    return Texts(ids, np.array(vectors), np.array(features))


def held_out(
    texts: Texts, labels: np.ndarray, names: list[str], questions: list[Question]
) -> dict[str, object]:
    """Return accuracy and calibration on a fifth of the texts that nothing was learned from."""
    held = np.array([fold_of(question.text, 5, seed=1) == 0 for question in questions])
    model = train_tasks(texts.take(~held), labels[~held], names, TRAININGS)
    chances = posteriors(model, texts.take(held))
    best = chances[:, :-1].argmax(axis=1)
    right = best == labels[held]
    sure = chances[:, :-1].max(axis=1)
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
        "unknown": round(float(chances[:, -1].mean()), 4),
        "under_one_prompt": under_one_prompt(
            chances, labels[held], [one for one, out in zip(questions, held, strict=True) if out]
        ),
    }


def under_one_prompt(
    chances: np.ndarray, labels: np.ndarray, questions: list[Question]
) -> dict[str, object]:
    """Return accuracy and loss of streams under one system prompt, without and with its history."""
    tables = np.array([question.id != WRITTEN for question in questions])
    places = [question.id for question in questions if question.id != WRITTEN]
    sources = [place.partition(":")[0] for place in places]
    found = worth(Streamed(chances[tables], labels[tables], places, sources))
    return {
        kind: {
            "alone": [round(one, 3) for one in value.alone],
            "with history": [round(one, 3) for one in value.recalled],
        }
        for kind, value in found.items()
    }


def elsewhere(
    model: TaskModel, folder: Path, tasks: Mapping[str, tuple[str, ...]]
) -> dict[str, object]:
    """Return how the model does on a source that nothing was learned from."""
    questions = read_table(folder).questions
    chances = posteriors(model, texts_of(questions))
    best = chances[:, :-1].argmax(axis=1)
    wanted = [
        next(names for pattern, names in tasks.items() if fnmatch(question.task, pattern))
        for question in questions
    ]
    right = np.array([model.names[at] in names for at, names in zip(best, wanted, strict=True)])
    # Each task's questions as they would come under system prompts of its own.
    told = chances.copy()
    of_task = np.array([question.task for question in questions])
    for task in sorted(set(of_task)):
        rows = np.flatnonzero(of_task == task)
        for begin in range(0, len(rows), LENGTH):
            told[rows[begin : begin + LENGTH]] = recalled(chances[rows[begin : begin + LENGTH]])
    then = told[:, :-1].argmax(axis=1)
    kept = np.array([model.names[at] in names for at, names in zip(then, wanted, strict=True)])
    taken = Counter(model.names[at] for at in best)
    return {
        "questions": len(questions),
        "accuracy": round(float(right.mean()), 4),
        "accuracy_under_one_prompt": round(float(kept.mean()), 4),
        "ece": round(ece(chances[:, :-1].max(axis=1), right.astype(np.float64)), 4),
        "unknown": round(float(chances[:, -1].mean()), 4),
        "taken_for": dict(taken.most_common(5)),
    }


if __name__ == "__main__":
    main()
