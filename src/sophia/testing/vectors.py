"""Embeddings of the sandbox: unit vectors from word hashes, so that shared words mean closeness."""

import base64
import hashlib
import math
import struct

DIMENSIONS = 256


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Return a unit vector for `text`; the same text gives the same vector everywhere."""
    total = [0.0] * dimensions
    for word in text.lower().split() or [""]:
        for position, value in enumerate(_word_vector(word, dimensions)):
            total[position] += value
    norm = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / norm for value in total]


def encode(vector: list[float]) -> str:
    """Return `vector` as base64 of little-endian 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _word_vector(word: str, dimensions: int) -> list[float]:
    raw = hashlib.shake_256(word.encode()).digest(2 * dimensions)
    return [value / 32768 for value in struct.unpack(f"<{dimensions}h", raw)]
