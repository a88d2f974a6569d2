"""Refit the priors to the shipped tables joined with newer benchmark files."""

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import json
from msgspec.structs import replace

from lab.evaluation.tables import InvalidTable
from lab.priors.benchmarks import (
    DATA,
    BenchmarkNames,
    BenchmarkScore,
    build_prior_book,
    decode_matrix,
    merge_scores,
    parse_names,
)
from lab.priors.exports import read_scores
from sophia.catalogue.catalogue import Catalogue
from sophia.learning.priors.book import (
    PRIORS_FILE,
    BenchmarkSource,
    PriorTable,
    SavedPriors,
    load_shipped_priors,
)


def refresh(data: Path, paths: Sequence[Path], catalogue: Catalogue, now_ms: int) -> SavedPriors:
    """Write the refitted priors into the data folder, and return them.

    Raises:
        InvalidTable: a file or the fit is invalid; nothing is changed.
    """
    names = parse_names((DATA / "priors.yaml").read_text())
    resolve_name = _build_name_resolver(names, catalogue)
    sources: list[BenchmarkSource] = []
    scores: list[BenchmarkScore] = []
    tables: set[str] = set()
    for path in paths:
        source, found = read_scores(path, resolve_name)
        sources.append(source)
        scores += found
        if path.is_dir():
            tables |= {one.source for one in found}
    known = decode_matrix((DATA / "benchmarks.json").read_bytes())
    cells = merge_scores(known, scores, names.released)
    listed = {model.id for model in catalogue.models}
    book = build_prior_book(cells, names, listed, tables.union(known.sources))
    _check_priors(book)
    saved = SavedPriors(created_ms=now_ms, sources=tuple(sources), priors=book)
    saved = replace(saved, sha256=saved.digest())
    fresh = data / f"{PRIORS_FILE}.new"
    fresh.write_bytes(json.format(json.encode(saved), indent=1) + b"\n")
    fresh.replace(data / PRIORS_FILE)
    return saved


def _build_name_resolver(names: BenchmarkNames, catalogue: Catalogue) -> Callable[[str], str]:
    """Return a function from a model's name in a file to its id, never a successor's id."""

    def resolve_name(name: str) -> str:
        if name in names.aliases:
            return names.aliases[name]
        found = catalogue.resolve(name)
        if found is not None:
            model = found.model
            if name.lower() in {model.id.lower(), (model.canonical_slug or "").lower()}:
                return model.id
        return name

    return resolve_name


def _check_priors(book: PriorTable) -> None:
    """Raise InvalidTable unless every prior is a valid score with a sd, and no model is lost."""
    old = load_shipped_priors()
    lost = sorted(set(old.arms) - set(book.arms)) + sorted(set(old.kinds) - set(book.kinds))
    every = [*book.arms.values(), *book.families.values(), book.unknown_family]
    if lost or any(
        not (0.0 <= mean <= 1.0 and 0.0 < sd <= 1.0)
        for one in every
        for mean, sd in zip(one.mean, one.sd, strict=True)
    ):
        raise InvalidTable(
            "The fit to these files and the shipped tables is invalid: "
            + (f"{', '.join(lost[:5])} would be lost." if lost else "some scores are out of range.")
        )
