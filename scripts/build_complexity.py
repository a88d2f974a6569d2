"""Train the estimate of complexity from outcome tables that may ship, and write its weights.

    python scripts/build_complexity.py --data DIR [--out FILE] [--report FILE]

Deterministic: the same tables give the same file. Needs the extra `learn`. Prints how well it
foresees difficulty on sources that it was not trained on, beside the formula that it replaced.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import yaml
from msgspec import Struct, convert
from scipy.stats import spearmanr

from sophia.learning.difficulty import Answers, Line, Part, as_ranks, difficulties, fit_line
from sophia.learning.table_sights import prompt_of
from sophia.learning.tables import Matrix, OutcomeTable, Question, is_table, read_table
from sophia.learning.task_training import posteriors
from sophia.routing.complexity import FIGURES
from sophia.routing.features import difficulty_figures, looked_at
from sophia.routing.policies.policy import Vector
from sophia.routing.tasks import read_tasks

HERE = Path(__file__).parent
ROUTING = HERE.parent / "src" / "sophia" / "routing"
SHIPPABLE = ("zeroeval", "mmlu_pro", "routellm", "paretobandit", "lineage_2025h1")
ELSEWHERE = ("bfcl", "routerbench_lite", "swebench_verified")
WRITTEN = "written"
RISING = np.array([name not in {"easier", "lines"} for name in FIGURES])
"""More of these never makes a request easier, whatever a table's habits are."""
PENALTY = 300.0
WRITTEN_WEIGHT = 0.75
LEVELS = (-3.2, 2.2)
"""Log-odds of difficulty that the levels 0 and 1 stand for: the ends of the tables' scale."""
SAMPLES = 400
FOLDS = 10
BANDS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
TITLE = "The trained line of `complexity`, in log-odds; written by `scripts/build_complexity.py`."


class Told(Struct, frozen=True, forbid_unknown_fields=True):
    """What `complexity.yaml` says."""

    models: dict[str, list[str]]
    written: dict[float, list[str]]


@dataclass(frozen=True)
class Source:
    """One table: its questions, their figures and the mean share of wrong answers."""

    table: OutcomeTable
    figures: Matrix
    wrong: Vector


def main() -> None:
    """Train, report and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROUTING / "complexity_weights.py")
    parser.add_argument("--report", type=Path)
    chosen = parser.parse_args()
    told = convert(yaml.safe_load((HERE / "complexity.yaml").read_text()), Told)
    sources = {
        name: source_of(read_table(chosen.data / name))
        for name in (*SHIPPABLE, *ELSEWHERE)
        if is_table(chosen.data / name)
    }
    parts = parts_of({name: sources[name] for name in SHIPPABLE}, told)
    line = trained(parts)
    chosen.out.write_text(written(line))
    text = json.dumps(report(sources, parts, told), indent=1)
    if chosen.report:
        chosen.report.write_text(text + "\n")
    sys.stdout.write(text + "\n")


def source_of(table: OutcomeTable) -> Source:
    """Return a table with the figures of its questions."""
    figures = np.array([difficulty_figures(prompt_of(question)) for question in table.questions])
    return Source(table, figures, 1.0 - table.quality.mean(axis=1))


def parts_of(sources: Mapping[str, Source], told: Told) -> dict[str, Part]:
    """Return what is trained on, by source, and `WRITTEN` last."""
    same = {name: model for model, names in told.models.items() for name in names}
    hard = difficulties(
        [
            Answers(
                tuple(same.get(arm, f"{source.table.name}: {arm}") for arm in source.table.arms),
                source.table.quality,
            )
            for source in sources.values()
        ]
    )
    found = {
        name: Part(source.figures, one)
        for (name, source), one in zip(sources.items(), hard, strict=True)
    }
    figures, levels = of_written(told)
    low, high = LEVELS
    return {**found, WRITTEN: Part(figures, low + (high - low) * levels, WRITTEN_WEIGHT)}


def of_written(told: Told) -> tuple[Matrix, Vector]:
    """Return the figures and the levels of the written requests."""
    texts = [(level, text) for level, texts in told.written.items() for text in texts]
    figures = [difficulty_figures(prompt_of(Question("", text, ""))) for _, text in texts]
    return np.array(figures), np.array([level for level, _ in texts])


def written(line: Line) -> str:
    """Return the module that holds the weights."""
    weights = ", ".join(f"{weight:.4f}" for weight in line.weights)
    return f'"""{TITLE}"""\n\nBIAS = {line.bias:.4f}\nWEIGHTS = ({weights})\n'


def report(
    sources: Mapping[str, Source], parts: Mapping[str, Part], told: Told
) -> dict[str, object]:
    """Return rank correlations with difficulty on sources that were left out, and the bands."""
    by_source, bands = {}, []
    for name, source in sources.items():
        line = trained_without(source, name, sources, parts)
        found = line(source.figures)
        formula = np.array([hand_made(question) for question in source.table.questions])
        by_source[name] = compared(found, formula, source.wrong)
        if name in SHIPPABLE:
            bands.append((1.0 / (1.0 + np.exp(-found)), parts[name].difficulty))
    return {
        "questions": {name: len(source.wrong) for name, source in sources.items()},
        "written": of_held_out_written(parts, told),
        "rank_correlation": by_source,
        "bands": in_bands(bands),
        "ideas": ideas(sources, parts),
    }


def trained(parts: Mapping[str, Part]) -> Line:
    """Return the line, as ranks among texts of which half are written and half are of tables."""
    usual = [
        replace(part, weight=float(len(parts) - 1) if name == WRITTEN else 1.0)
        for name, part in parts.items()
    ]
    return as_ranks(fit_line(list(parts.values()), RISING, PENALTY), usual)


def trained_without(
    left_out: Source, name: str, sources: Mapping[str, Source], parts: Mapping[str, Part]
) -> Line:
    """Return the line trained on the other sources, without the texts that this one has too."""
    texts = {question.text.strip() for question in left_out.table.questions}
    others = {}
    for other, part in parts.items():
        if other in sources:
            fresh = np.array([q.text.strip() not in texts for q in sources[other].table.questions])
            others[other] = Part(part.figures[fresh], part.difficulty[fresh])
        else:
            others[other] = part
    others.pop(name, None)
    return trained(others)


def compared(found: Vector, formula: Vector, wrong: Vector) -> dict[str, object]:
    """Return both rank correlations and the 95 % bootstrap interval of their difference."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(wrong), len(wrong)) for _ in range(SAMPLES)]
    apart = [spearman(found[at], wrong[at]) - spearman(formula[at], wrong[at]) for at in draws]
    low, high = np.quantile(apart, [0.025, 0.975])
    return {
        "trained": round(spearman(found, wrong), 3),
        "formula": round(spearman(formula, wrong), 3),
        "difference": [round(float(low), 3), round(float(high), 3)],
    }


def of_held_out_written(parts: Mapping[str, Part], told: Told) -> dict[str, object]:
    """Return how the written requests are ordered by lines that saw nine tenths of them."""
    figures, levels = of_written(told)
    part, found = parts[WRITTEN], np.zeros(len(levels))
    for fold in range(FOLDS):
        held = np.arange(len(levels)) % FOLDS == fold
        rest = Part(part.figures[~held], part.difficulty[~held], part.weight)
        found[held] = trained({**parts, WRITTEN: rest})(figures[held])
    texts = [text for texts in told.written.values() for text in texts]
    formula = np.array([hand_made(Question("", text, "")) for text in texts])
    return {"requests": len(levels), **compared(found, formula, levels)}


def in_bands(found: Sequence[tuple[Vector, Vector]]) -> list[dict[str, float]]:
    """Return by band of complexity what share of a middling model's answers was wrong.

    Each source counts alike, by lines that were trained without it.
    """
    complexity = np.concatenate([one for one, _ in found])
    wrong = 1.0 / (1.0 + np.exp(-np.concatenate([hard for _, hard in found])))
    weight = np.concatenate([np.full(len(one), 1.0 / len(one)) for one, _ in found])
    told = []
    for low, high in pairwise(BANDS):
        within = (complexity >= low) & (complexity < high + (high == 1.0))
        share = float(weight[within].sum() / weight.sum())
        mean = float((wrong * weight)[within].sum() / max(weight[within].sum(), 1e-12))
        told.append({"from": low, "to": high, "texts": round(share, 3), "wrong": round(mean, 3)})
    return told


def ideas(sources: Mapping[str, Source], parts: Mapping[str, Part]) -> dict[str, dict[str, float]]:
    """Return the rank correlations of what was tried besides, trained without each source."""
    from sophia.learning.table_sights import read_texts

    model = read_tasks((ROUTING / "data" / "tasks.npz").read_bytes())
    texts = {name: read_texts(source.table) for name, source in sources.items()}
    tried: dict[str, Callable[[str], Matrix]] = {
        "with the task posterior": lambda name: posteriors(model, texts[name]),
        "with the embedding": lambda name: 4.0 * texts[name].embeddings,
        "with 55 figures of the surface": lambda name: texts[name].features,
    }
    told = {}
    for idea, more in tried.items():
        wide = {
            name: np.hstack([source.figures, more(name)]) for name, source in sources.items()
        }
        free = np.zeros(wide["zeroeval"].shape[1], np.bool_)
        told[idea] = {}
        for name, source in sources.items():
            others = [Part(wide[o], parts[o].difficulty) for o in SHIPPABLE if o != name]
            line = fit_line(others, free, 10 * PENALTY)
            told[idea][name] = round(spearman(line(wide[name]), source.wrong), 3)
    return told


def spearman(found: Vector, wanted: Vector) -> float:
    """Return the rank correlation of two columns."""
    return float(spearmanr(found, wanted).statistic)


def hand_made(question: Question) -> float:
    """Return the complexity by the formula that was used before, to compare with."""
    prompt = prompt_of(question)
    found = dict(zip(FIGURES, difficulty_figures(prompt), strict=True))
    value = 0.12 + 0.055 * math.log2(1 + prompt.chars / 60) + found["harder"] - found["easier"]
    value += 0.12 * found["code"] + 0.1 * found["maths"]
    text = looked_at(prompt)
    if text.count("?") > 2 or "\n1." in text or "\n- " in text:
        value += 0.06
    return min(1.0, max(0.0, value + (0.08 if prompt.tools else 0.0)))


if __name__ == "__main__":
    main()
