"""Finished cells, a source and a policy each, kept between runs and thrown away when stale."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import bench.routing
import sophia.learning
import sophia.routing
from sophia.learning.tables import Matrix

READ = ("embedding.py", "features.py", "nouns.py", "sight.py", "tasks.py", "vocabulary.py")
LEARNED = ("tables.py", "table_sights.py", "task_training.py", "batch_training.py")
WORK = Path(__file__).parent.parent / "work/routing"


@dataclass(frozen=True)
class Cell:
    """What a policy expects of a source out of fold, both (N, A)."""

    quality: Matrix
    cost: Matrix


@dataclass(frozen=True)
class Cells:
    """Where cells are kept; with `fresh` none of an earlier run is taken."""

    folder: Path = WORK
    fresh: bool = False

    def load(self, key: str) -> Cell | None:
        """Return a kept cell."""
        path = self.folder / f"{key}.npz"
        if self.fresh or not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as kept:
            return Cell(kept["quality"], kept["cost"])

    def keep(self, key: str, cell: Cell) -> None:
        """Keep a cell; it is there whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{key}.draft.npz"
        np.savez_compressed(draft, quality=cell.quality, cost=cell.cost)
        draft.replace(self.folder / f"{key}.npz")

    def load_numbers(self, key: str) -> dict[str, list[float]] | None:
        """Return kept figures."""
        path = self.folder / f"{key}.json"
        return json.loads(path.read_text()) if path.is_file() and not self.fresh else None

    def keep_numbers(self, key: str, numbers: dict[str, list[float]]) -> None:
        """Keep figures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{key}.json").write_text(json.dumps(numbers))


def key_of(data: list[Path], settings: tuple[object, ...]) -> str:
    """Return the name of a cell: it changes with the data, the code and the settings."""
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(_code())
    for path in data:
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:24]


def _code() -> bytes:
    """Return the state of the code that a cell depends on."""
    digest = hashlib.sha256()
    routing, learning = (Path(part.__path__[0]) for part in (sophia.routing, sophia.learning))
    paths = [
        *(routing / name for name in READ),
        *(routing / "policies").glob("*.py"),
        *(learning / name for name in LEARNED),
        routing / "data/embedding.npz",
        *(
            Path(bench.routing.__path__[0]) / name
            for name in ("sources.py", "contestants.py", "online_agent.py", "online_stream.py")
        ),
    ]
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.digest()
