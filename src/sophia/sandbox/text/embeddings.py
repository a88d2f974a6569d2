"""Embeddings from word hashes: texts that share words are close to each other."""

import base64
import hashlib
import math
import struct
from collections.abc import Mapping

from sophia.sandbox.api.errors import SandboxError
from sophia.sandbox.api.listing import ListedModel
from sophia.sandbox.api.shapes import NANO_PER_USD, JsonObject, as_list, count_text_tokens

DEFAULT_DIMENSIONS = 256
MAX_DIMENSIONS = 4096


def build_embeddings(body: Mapping[str, object], model: ListedModel) -> tuple[JsonObject, int]:
    """Return the answer to an embeddings request and its prompt tokens.

    Raises SandboxError (400): there is no input, or the dimensions are no positive number.
    """
    inputs = body.get("input")
    if not isinstance(inputs, list) or (inputs and all(isinstance(item, int) for item in inputs)):
        inputs = [inputs]
    if not inputs or any(not isinstance(text, (str, list)) or not text for text in inputs):
        raise SandboxError(400, "input: expected text, or a list of texts")
    dimensions = body.get("dimensions") or DEFAULT_DIMENSIONS
    if not isinstance(dimensions, int) or not 0 < dimensions <= MAX_DIMENSIONS:
        raise SandboxError(400, f"dimensions: expected 1 to {MAX_DIMENSIONS}")
    rows: list[JsonObject] = []
    for index, text in enumerate(inputs):
        vector = _embed(text if isinstance(text, str) else repr(text), dimensions)
        row: JsonObject = {"object": "embedding", "embedding": vector, "index": index}
        if body.get("encoding_format") == "base64":
            row["embedding"] = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
        rows.append(row)
    tokens = sum(
        count_text_tokens(text) if isinstance(text, str) else len(as_list(text)) for text in inputs
    )
    cost = model.cost(tokens, 0) / NANO_PER_USD
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "cost": cost}
    return {"object": "list", "data": rows, "model": model.id, "usage": usage}, tokens


def _embed(text: str, dimensions: int) -> list[float]:
    """Return a unit vector for `text`; the same text gives the same vector everywhere."""
    total = [0.0] * dimensions
    for word in text.lower().split() or [""]:
        digest = hashlib.shake_256(word.encode()).digest(2 * dimensions)
        for position, value in enumerate(struct.unpack(f"<{dimensions}h", digest)):
            total[position] += value / 32768
    norm = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / norm for value in total]
