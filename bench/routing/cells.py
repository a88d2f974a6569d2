"""Cache of predictions by source and policy, keyed by data, code and settings."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import bench.routing
import lab
import sophia.routing
from lab.evaluation.tables import Matrix

CODE = ("bandit/context", "bandit/quality", "features")
LAB = ("baselines", "evaluation", "training")
BENCH = ("policies.py", "online_agent.py", "online_stream.py", "pooling.py", "sources.py")
CACHE_FOLDER = Path(__file__).parent.parent / "work/routing"


@dataclass(frozen=True)
class Prediction:
    """Out-of-fold expected quality and cost of a policy on a source, both (N, A)."""

    quality: Matrix
    cost: Matrix


@dataclass(frozen=True)
class PredictionCache:
    """Folder of cached predictions; `fresh` ignores those of earlier runs."""

    folder: Path = CACHE_FOLDER
    fresh: bool = False

    def load(self, key: str) -> Prediction | None:
        """Return a cached prediction."""
        path = self.folder / f"{key}.npz"
        if self.fresh or not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return Prediction(arrays["quality"], arrays["cost"])

    def save(self, key: str, cell: Prediction) -> None:
        """Cache a prediction atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{key}.draft.npz"
        np.savez_compressed(draft, quality=cell.quality, cost=cell.cost)
        draft.replace(self.folder / f"{key}.npz")

    def load_numbers(self, key: str) -> dict[str, list[float]] | None:
        """Return cached numbers."""
        path = self.folder / f"{key}.json"
        return json.loads(path.read_text()) if path.is_file() and not self.fresh else None

    def save_numbers(self, key: str, numbers: dict[str, list[float]]) -> None:
        """Cache numbers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{key}.json").write_text(json.dumps(numbers))


def build_cache_key(data: list[Path], settings: tuple[object, ...]) -> str:
    """Return a digest of the data, the code and the settings."""
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(_digest_sources())
    for path in data:
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:24]


def _digest_sources() -> bytes:
    """Return a digest of the code that predictions depend on."""
    digest = hashlib.sha256()
    routing = Path(sophia.routing.__path__[0])
    paths = [
        *(path for part in CODE for path in (routing / part).rglob("*.py")),
        *(path for part in LAB for path in (Path(lab.__path__[0]) / part).rglob("*.py")),
        routing / "data/embedding.npz",
        *(Path(bench.routing.__path__[0]) / name for name in BENCH),
    ]
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.digest()
