"""Write the static token table into the package: `python -m lab.training.embedding --data DIR`."""

import argparse
import json
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[2] / "src/sophia/routing/data/embedding.npz"


def main() -> None:
    """Join the codes, their scale and the tokenizer's vocabulary in one file without pickles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with the tokenizer and the token table"
    )
    folder: Path = parser.parse_args().data
    model = json.loads((folder / "minilm_static_tokenizer.json").read_text())["model"]
    ids: dict[str, int] = model["vocab"]
    words = "\n".join(sorted(ids, key=lambda word: ids[word])).encode()
    with np.load(folder / "minilm_static_256_int8.npz") as table:
        np.savez_compressed(
            TARGET, codes=table["codes"], scale=table["scale"], words=np.frombuffer(words, np.uint8)
        )
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
