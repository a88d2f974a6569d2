"""Priors fitted to ratings and tables: they rank what was left out, and the files are current."""

import numpy as np
import pytest

from lab.priors.benchmarks import DATA, BenchmarkMatrix, decode_matrix, encode_matrix, load_names
from lab.priors.build import SHIPPED, list_catalogue
from lab.priors.fit import encode_table, fit_priors
from lab.priors.ratings import Ratings, read_ratings
from sophia.learning.priors.book import PriorBook


@pytest.fixture(scope="module")
def ratings() -> Ratings:
    return read_ratings()


@pytest.fixture(scope="module")
def tables() -> BenchmarkMatrix:
    return decode_matrix((DATA / "benchmarks.json").read_bytes())


def test_the_shipped_priors_are_those_of_the_files(
    ratings: Ratings, tables: BenchmarkMatrix
) -> None:
    table = fit_priors(ratings, tables, load_names(), list_catalogue())
    assert encode_table(table) == SHIPPED.read_bytes()
    assert decode_matrix(encode_matrix(tables)).arms == tables.arms


@pytest.mark.parametrize("source", ["zeroeval", "mmlu_pro", "paretobandit"])
def test_a_source_that_was_left_out_is_ranked(
    ratings: Ratings, tables: BenchmarkMatrix, source: str
) -> None:
    book = PriorBook(fit_priors(ratings, tables.without([source]), load_names()))
    rows = [at for at, one in enumerate(tables.sources) if one == source]
    seen = np.isfinite(tables.score[rows])
    totals = np.nansum(tables.score[rows], axis=0)
    pairs = [
        (float(np.mean(prior.mean)), total / count)
        for arm, total, count in zip(tables.arms, totals, seen.sum(axis=0), strict=True)
        if count and (prior := book.find(arm)) is not None
    ]
    ranks = np.argsort(np.argsort(np.array(pairs), axis=0), axis=0)
    assert np.corrcoef(ranks.T)[0, 1] > 0.7


def test_a_table_rates_an_arm_that_nobody_else_rated(
    ratings: Ratings, tables: BenchmarkMatrix
) -> None:
    """Its place between the rated arms of the table is its place on the scale of the ratings."""
    book = PriorBook(fit_priors(ratings, tables, load_names()))
    better, own, worse = (
        book.find(arm)
        for arm in ("qwen/qwen-2.5-72b-instruct", "qwen/qwen-2.5-7b-instruct", "gemma-2-2b-it")
    )
    assert better is not None
    assert own is not None
    assert worse is not None
    assert own.basis == "measured"
    assert np.mean(better.mean) > np.mean(own.mean) > np.mean(worse.mean)


def test_what_is_left_out_leaves_no_trace(ratings: Ratings, tables: BenchmarkMatrix) -> None:
    names, model = load_names(), "openai/gpt-4o-mini"
    rated = ratings.build_finder(names.rated_as).find(model)
    assert rated is not None
    less = fit_priors(ratings.without({rated}), tables.without(arms=[model]), names)
    assert PriorBook(less).find(model) is None
