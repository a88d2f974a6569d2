"""Train the complexity model from outcome tables that may ship, and write its weights.

    python -m lab.training.complexity --data DIR [--out FILE] [--report FILE]

Deterministic: the same tables give the same file. Prints its rank correlations with difficulty on
held-out sources, beside those of the formula that it replaced.
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

from lab.evaluation.tables import Matrix, OutcomeTable, Question, is_table, read_table
from lab.training.difficulty import (
    AnswerTable,
    LinearModel,
    TrainingSource,
    estimate_difficulties,
    fit_linear_model,
    rescale_to_ranks,
)
from lab.training.table_contexts import build_prompt, encode_questions
from lab.training.task_training import predict_posteriors
from sophia.routing.bandit.context.task_model import load_task_model
from sophia.routing.bandit.policy import Vector
from sophia.routing.features.complexity import compute_complexity_features
from sophia.routing.features.extract import TextScan, build_excerpt
from sophia.routing.types import Prompt

ROUTING = Path(__file__).parents[2] / "src" / "sophia" / "routing"
REQUESTS = Path(__file__).parent / "data" / "complexity.yaml"
SHIPPABLE = ("zeroeval", "mmlu_pro", "routellm", "paretobandit", "lineage_2025h1")
HELD_OUT_SOURCES = ("bfcl", "routerbench_lite", "swebench_verified")
WRITTEN = "written"
COMPLEXITY_FEATURES = (
    "length",
    "easier",
    "harder",
    "demanding",
    "code",
    "maths",
    "lines",
    "digits",
    "notation",
)
"""Names of the inputs of the model."""
RISING = np.array([name not in {"easier", "lines"} for name in COMPLEXITY_FEATURES])
"""Features with a non-negative weight."""
PENALTY = 300.0
WRITTEN_WEIGHT = 0.75
LEVELS = (-3.2, 2.2)
"""Difficulties of the levels 0 and 1 in log-odds: the ends of the tables' scale."""
SAMPLES = 400
FOLDS = 10
BANDS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
TITLE = "The trained line of `complexity`, in log-odds; written by `lab/training/complexity.py`."


class ComplexityData(Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of `complexity.yaml`: model aliases, and written requests by level."""

    models: dict[str, list[str]]
    written: dict[float, list[str]]


@dataclass(frozen=True)
class Source:
    """One table: its questions, their features and the mean share of wrong answers."""

    table: OutcomeTable
    features: Matrix
    wrong: Vector


def main() -> None:
    """Train, report and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROUTING / "features" / "complexity_weights.py")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    data = convert(yaml.safe_load(REQUESTS.read_text()), ComplexityData)
    sources = {
        name: build_source(read_table(options.data / name))
        for name in (*SHIPPABLE, *HELD_OUT_SOURCES)
        if is_table(options.data / name)
    }
    parts = build_training_sources({name: sources[name] for name in SHIPPABLE}, data)
    line = fit_ranks(parts)
    options.out.write_text(render_module(line))
    text = json.dumps(build_report(sources, parts, data), indent=1)
    if options.report:
        options.report.write_text(text + "\n")
    sys.stdout.write(text + "\n")


def extract_complexity_features(prompt: Prompt) -> tuple[float, ...]:
    """Return the inputs of the complexity model, one for each of `COMPLEXITY_FEATURES`."""
    text = build_excerpt(prompt)
    return compute_complexity_features(prompt, text, TextScan(text).cues)


def build_source(table: OutcomeTable) -> Source:
    """Return a table with the features of its questions."""
    features = np.array(
        [extract_complexity_features(build_prompt(question)) for question in table.questions]
    )
    return Source(table, features, 1.0 - table.quality.mean(axis=1))


def build_training_sources(
    sources: Mapping[str, Source], data: ComplexityData
) -> dict[str, TrainingSource]:
    """Return the training data by source, `WRITTEN` last."""
    same = {name: model for model, names in data.models.items() for name in names}
    hard = estimate_difficulties(
        [
            AnswerTable(
                tuple(same.get(arm, f"{source.table.name}: {arm}") for arm in source.table.arms),
                source.table.quality,
            )
            for source in sources.values()
        ]
    )
    found = {
        name: TrainingSource(source.features, one)
        for (name, source), one in zip(sources.items(), hard, strict=True)
    }
    features, levels = build_written_examples(data)
    low, high = LEVELS
    return {**found, WRITTEN: TrainingSource(features, low + (high - low) * levels, WRITTEN_WEIGHT)}


def build_written_examples(data: ComplexityData) -> tuple[Matrix, Vector]:
    """Return the features and the levels of the written requests."""
    texts = [(level, text) for level, texts in data.written.items() for text in texts]
    features = [
        extract_complexity_features(build_prompt(Question("", text, ""))) for _, text in texts
    ]
    return np.array(features), np.array([level for level, _ in texts])


def render_module(line: LinearModel) -> str:
    """Return the module that holds the weights."""
    weights = ", ".join(f"{weight:.4f}" for weight in line.weights)
    return f'"""{TITLE}"""\n\nBIAS = {line.bias:.4f}\nWEIGHTS = ({weights})\n'


def build_report(
    sources: Mapping[str, Source], parts: Mapping[str, TrainingSource], data: ComplexityData
) -> dict[str, object]:
    """Return rank correlations with difficulty on sources that were left out, and the bands."""
    by_source, bands = {}, []
    for name, source in sources.items():
        line = fit_without_source(source, name, sources, parts)
        found = line(source.features)
        formula = np.array([previous_formula(question) for question in source.table.questions])
        by_source[name] = compare_correlations(found, formula, source.wrong)
        if name in SHIPPABLE:
            bands.append((1.0 / (1.0 + np.exp(-found)), parts[name].difficulty))
    return {
        "questions": {name: len(source.wrong) for name, source in sources.items()},
        "written": evaluate_written(parts, data),
        "rank_correlation": by_source,
        "bands": summarize_bands(bands),
        "ideas": evaluate_extra_features(sources, parts),
    }


def fit_ranks(parts: Mapping[str, TrainingSource]) -> LinearModel:
    """Fit the model and rescale it to ranks among texts, half written and half from tables."""
    reweighted = [
        replace(part, weight=float(len(parts) - 1) if name == WRITTEN else 1.0)
        for name, part in parts.items()
    ]
    return rescale_to_ranks(fit_linear_model(list(parts.values()), RISING, PENALTY), reweighted)


def fit_without_source(
    left_out: Source, name: str, sources: Mapping[str, Source], parts: Mapping[str, TrainingSource]
) -> LinearModel:
    """Fit the model to the other sources, without the texts that `left_out` also has."""
    texts = {question.text.strip() for question in left_out.table.questions}
    others = {}
    for other, part in parts.items():
        if other in sources:
            fresh = np.array([q.text.strip() not in texts for q in sources[other].table.questions])
            others[other] = TrainingSource(part.features[fresh], part.difficulty[fresh])
        else:
            others[other] = part
    others.pop(name, None)
    return fit_ranks(others)


def compare_correlations(found: Vector, formula: Vector, wrong: Vector) -> dict[str, object]:
    """Return both rank correlations and the 95 % bootstrap interval of their difference."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(wrong), len(wrong)) for _ in range(SAMPLES)]
    differences = [
        rank_correlation(found[at], wrong[at]) - rank_correlation(formula[at], wrong[at])
        for at in draws
    ]
    low, high = np.quantile(differences, [0.025, 0.975])
    return {
        "trained": round(rank_correlation(found, wrong), 3),
        "formula": round(rank_correlation(formula, wrong), 3),
        "difference": [round(float(low), 3), round(float(high), 3)],
    }


def evaluate_written(
    parts: Mapping[str, TrainingSource], data: ComplexityData
) -> dict[str, object]:
    """Return cross-validated rank correlations on the written requests."""
    features, levels = build_written_examples(data)
    part, found = parts[WRITTEN], np.zeros(len(levels))
    for fold in range(FOLDS):
        held = np.arange(len(levels)) % FOLDS == fold
        rest = TrainingSource(part.features[~held], part.difficulty[~held], part.weight)
        found[held] = fit_ranks({**parts, WRITTEN: rest})(features[held])
    texts = [text for texts in data.written.values() for text in texts]
    formula = np.array([previous_formula(Question("", text, "")) for text in texts])
    return {"requests": len(levels), **compare_correlations(found, formula, levels)}


def summarize_bands(found: Sequence[tuple[Vector, Vector]]) -> list[dict[str, float]]:
    """Return the share of wrong answers of an average model by band of complexity.

    Every source has the same weight; its complexities come from a model trained without it.
    """
    complexity = np.concatenate([one for one, _ in found])
    wrong = 1.0 / (1.0 + np.exp(-np.concatenate([hard for _, hard in found])))
    weight = np.concatenate([np.full(len(one), 1.0 / len(one)) for one, _ in found])
    bands = []
    for low, high in pairwise(BANDS):
        within = (complexity >= low) & (complexity < high + (high == 1.0))
        share = float(weight[within].sum() / weight.sum())
        mean = float((wrong * weight)[within].sum() / max(weight[within].sum(), 1e-12))
        bands.append({"from": low, "to": high, "texts": round(share, 3), "wrong": round(mean, 3)})
    return bands


def evaluate_extra_features(
    sources: Mapping[str, Source], parts: Mapping[str, TrainingSource]
) -> dict[str, dict[str, float]]:
    """Return held-out rank correlations with extra features added."""
    model = load_task_model((ROUTING / "data" / "tasks.npz").read_bytes())
    texts = {name: encode_questions(source.table.questions) for name, source in sources.items()}
    tried: dict[str, Callable[[str], Matrix]] = {
        "with the task posterior": lambda name: predict_posteriors(model, texts[name]),
        "with the embedding": lambda name: 4.0 * texts[name].embeddings,
        "with 55 figures of the surface": lambda name: texts[name].features,
    }
    correlations: dict[str, dict[str, float]] = {}
    for idea, more in tried.items():
        wide = {name: np.hstack([source.features, more(name)]) for name, source in sources.items()}
        free = np.zeros(wide["zeroeval"].shape[1], np.bool_)
        correlations[idea] = {}
        for name, source in sources.items():
            others = [TrainingSource(wide[o], parts[o].difficulty) for o in SHIPPABLE if o != name]
            line = fit_linear_model(others, free, 10 * PENALTY)
            correlations[idea][name] = round(rank_correlation(line(wide[name]), source.wrong), 3)
    return correlations


def rank_correlation(found: Vector, target: Vector) -> float:
    """Return Spearman's rank correlation."""
    return float(spearmanr(found, target).statistic)


def previous_formula(question: Question) -> float:
    """Return the complexity by the replaced formula, for comparison."""
    prompt = build_prompt(question)
    found = dict(zip(COMPLEXITY_FEATURES, extract_complexity_features(prompt), strict=True))
    value = 0.12 + 0.055 * math.log2(1 + prompt.chars / 60) + found["harder"] - found["easier"]
    value += 0.12 * found["code"] + 0.1 * found["maths"]
    text = build_excerpt(prompt)
    if text.count("?") > 2 or "\n1." in text or "\n- " in text:
        value += 0.06
    return min(1.0, max(0.0, value + (0.08 if prompt.tools else 0.0)))


if __name__ == "__main__":
    main()
