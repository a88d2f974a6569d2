"""Train the task model from outcome tables that may ship, and write it into the package.

    python scripts/build_task_model.py --data DIR [--out FILE] [--report FILE]

Deterministic: the same tables give the same bytes. Needs the extra `learn`.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from sophia.learning.measures import ece
from sophia.learning.table_sights import prompt_of
from sophia.learning.tables import Question, fold_of
from sophia.learning.task_training import Texts, Training, posteriors, train_tasks
from sophia.routing.embedding import read_embedding
from sophia.routing.features import extract
from sophia.routing.nouns import Hints
from sophia.routing.sight import embed, features_of
from sophia.routing.taxonomy import Taxonomy, class_of, read_taxonomy

DATA = Path(__file__).parent.parent / "src" / "sophia" / "routing" / "data"
SHIPPABLE = ("zeroeval", "mmlu_pro", "routellm", "paretobandit", "lineage_2025h1")
MOST = 600
"""Texts of one class and source; more would teach nothing but that this class is usual."""
SEED_COPIES = 20
TRAININGS = (Training(strength=0.3, patience=120), Training(strength=1.0, patience=120))


def main() -> None:
    """Train, report and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DATA / "tasks.npz")
    parser.add_argument("--report", type=Path)
    chosen = parser.parse_args()
    taxonomy = read_taxonomy((DATA / "taxonomy.yaml").read_text())
    pairs = [*labelled(chosen.data, taxonomy, SHIPPABLE, MOST), *seeds(taxonomy)]
    texts = texts_of([text for text, _ in pairs])
    names = list(taxonomy)
    labels = np.array([names.index(name) for _, name in pairs])
    counts = Counter(name for _, name in pairs)
    report = {"texts": dict(counts), **held_out(texts, labels, names, pairs)}
    model = train_tasks(texts, labels, names, TRAININGS)
    chosen.out.write_bytes(model.dump())
    told = json.dumps(report, indent=1)
    if chosen.report:
        chosen.report.write_text(told + "\n")
    sys.stdout.write(told + "\n")


def labelled(
    data: Path, taxonomy: Taxonomy, sources: tuple[str, ...], most: int
) -> list[tuple[str, str]]:
    """Return (text, class) pairs of the sources' questions, each text once."""
    from pyarrow import parquet

    found: dict[str, str] = {}
    for source in sources:
        rows = parquet.read_table(data / source / "queries.parquet").to_pylist()
        taken: defaultdict[str, int] = defaultdict(int)
        for row in sorted(rows, key=lambda row: fold_of(row["query_text"], 1 << 32)):
            name = class_of(taxonomy, row["task"])
            if name is not None and taken[name] < most and row["query_text"] not in found:
                taken[name] += 1
                found[row["query_text"]] = name
    return list(found.items())


def seeds(taxonomy: Taxonomy) -> list[tuple[str, str]]:
    """Return the written examples, as often as makes up for their being few."""
    return [
        (seed, name)
        for name, kind in taxonomy.items()
        for seed in kind.seeds
        for _ in range(SEED_COPIES)
    ]


def texts_of(texts: list[str]) -> Texts:
    """Return what is known of texts."""
    embedding = read_embedding((DATA / "embedding.npz").read_bytes())
    ids, vectors, features = [], [], []
    for text in texts:
        prompt = prompt_of(Question("", text, ""))
        found, vector = embed(embedding, prompt)
        ids.append(found)
        vectors.append(vector)
        features.append(features_of(prompt, extract(prompt, Hints()), Hints()))
    return Texts(ids, np.array(vectors), np.array(features))


def held_out(
    texts: Texts, labels: np.ndarray, names: list[str], pairs: list[tuple[str, str]]
) -> dict[str, object]:
    """Return accuracy and calibration on a fifth of the texts that nothing was learned from."""
    held = np.array([fold_of(text, 5, seed=1) == 0 for text, _ in pairs])
    model = train_tasks(texts.take(~held), labels[~held], names, TRAININGS)
    chances = posteriors(model, texts.take(held))
    best = chances[:, :-1].argmax(axis=1)
    right = best == labels[held]
    sure = chances[:, :-1].max(axis=1)
    by_class = {
        name: round(float(right[labels[held] == at].mean()), 3)
        for at, name in enumerate(names)
        if (labels[held] == at).any()
    }
    return {
        "held_out": int(held.sum()),
        "accuracy": round(float(right.mean()), 4),
        "accuracy_by_class": by_class,
        "ece": round(ece(sure, right.astype(np.float64)), 4),
        "unknown": round(float(chances[:, -1].mean()), 4),
    }


if __name__ == "__main__":
    main()
