"""Load of the gateway benchmark: request bodies and phases."""

import json
from dataclasses import dataclass
from pathlib import Path

from bench.gateway import paths

SENTENCE = (
    "Please explain in plain words how a hash map resolves collisions and when it must grow. "
)
EVENTS_PER_STREAM = 50


@dataclass(frozen=True, slots=True)
class Body:
    """A chat request; `mark` in the prompt sets the mock upstream's delay and event interval."""

    messages: int
    chars: int
    mark: str = ""
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Phase:
    """A window of load: a closed loop, or `rate` requests per second.

    `share` scales the window's length. The phase is skipped for a gateway whose throughput in the
    phase `capacity` is below this rate.
    """

    name: str
    title: str
    body: str
    connections: int
    rate: int = 0
    stream: bool = False
    share: float = 1.0
    capacity: str | None = None


BODIES = {
    "small": Body(3, 400),
    "large": Body(31, 2048),
    "delayed": Body(3, 400, " #!d50"),
    "paced": Body(3, 400, " #!g1000", stream=True),
    "burst": Body(3, 400, stream=True),
}
PHASES = {
    phase.name: phase
    for phase in (
        Phase("sat", "1.5 kB requests, 32 connections, as fast as possible", "small", 32),
        Phase(
            "large", "64 kB requests, 16 connections, as fast as possible", "large", 16, share=0.7
        ),
        Phase(
            "r200",
            "200 requests/s, upstream takes 50 ms",
            "delayed",
            64,
            200,
            share=0.8,
            capacity="sat",
        ),
        Phase("r500", "500 requests/s, upstream takes 50 ms", "delayed", 128, 500, capacity="sat"),
        Phase("sse", "64 streams at once, an event each ms", "paced", 64, stream=True),
        Phase(
            "burst",
            "16 streams at once, all events in one write",
            "burst",
            16,
            stream=True,
            share=0.5,
        ),
        Phase(
            "pace",
            "20 streams/s, an event each ms",
            "paced",
            64,
            20,
            stream=True,
            share=0.8,
            capacity="sse",
        ),
    )
}


def encode_body(body: Body, model: str) -> bytes:
    """Return the request as compact JSON."""
    text = (SENTENCE * (body.chars // len(SENTENCE) + 1))[: body.chars]
    system = f"You are a careful assistant. Answer briefly and say when you are unsure.{body.mark}"
    messages = [{"role": "system", "content": system}]
    messages += [
        {"role": ("user", "assistant")[i % 2], "content": text} for i in range(body.messages)
    ]
    request: dict[str, object] = {
        "model": model,
        "messages": messages,
        "temperature": 0.2,
        "max_tokens": 256,
    }
    if body.stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(request, separators=(",", ":")).encode()


def write_body(name: str, model: str) -> Path:
    """Write the body `name` for `model`, and return its path."""
    path = paths.BODIES / model.replace("/", "_") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_body(BODIES[name], model))
    return path
