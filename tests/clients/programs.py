"""The client libraries under test: their commands, and the names of their errors."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROMPT = "What does a router do?"


@dataclass(frozen=True, eq=False)
class Client:
    """One library, used with the base path `api`.

    `errors` maps each kind of failure to the library's own exception class. `hides_in_streams`
    names fields that the library shows of whole answers only.
    """

    name: str
    command: tuple[str, ...]
    api: str
    errors: Mapping[str, str]
    hides_in_streams: frozenset[str] = frozenset()


class Program:
    """A running client program, which takes one JSON line per request (see python/talk.py)."""

    def __init__(self, client: Client, url: str, key: str) -> None:
        self.client = client
        self._process = subprocess.Popen(
            client.command,
            env={**os.environ, "BASE_URL": url + client.api, "API_KEY": key},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def try_to(self, do: str, **ask: Any) -> dict[str, Any]:
        """Return the answer or the error that the program received."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"do": do, "prompt": PROMPT, **ask}) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, f"{self.client.name} ended with status {self._process.wait()}"
        seen: dict[str, Any] = json.loads(line)
        return seen

    def get(self, do: str, **ask: Any) -> dict[str, Any]:
        """Return the answer that the program received, without any error."""
        seen = self.try_to(do, **ask)
        assert not {"error", "chunk_error", "part_error"} & seen.keys(), seen
        return seen

    def shows(self, what: str, stream: bool) -> bool:
        """Return whether the library shows the field `what` to its user."""
        return not (stream and what in self.client.hides_in_streams)

    def close(self) -> None:
        """End the program and wait for it."""
        with self._process:
            self._process.terminate()


def python(environment: str, program: str) -> tuple[str, ...]:
    interpreter = ROOT / ".venvs" / f"clients-{environment}" / "bin" / "python"
    return str(interpreter), str(HERE / "python" / program)


def node(program: str) -> tuple[str, ...]:
    return "node", str(HERE / "node" / program)


OPENAI = MappingProxyType(
    {
        "unknown model": "NotFoundError",
        "bad key": "AuthenticationError",
        "bad parameter": "BadRequestError",
        "busy": "RateLimitError",
        "down": "InternalServerError",
        "mid-stream": "APIError",
    }
)
LITELLM = MappingProxyType({**OPENAI, "down": "APIError"})
OPENROUTER = MappingProxyType(
    {
        "unknown model": "NotFoundResponseError",
        "bad key": "UnauthorizedResponseError",
        "bad parameter": "BadRequestResponseError",
        "busy": "TooManyRequestsResponseError",
        "down": "BadGatewayResponseError",
    }
)
PYDANTIC_AI = MappingProxyType(
    {
        "unknown model": "ModelNotFoundError",
        "bad key": "ModelAuthenticationError",
        "bad parameter": "ModelRequestRejectedError",
        "busy": "ModelRateLimitError",
        "down": "ModelServerError",
        "mid-stream": "ModelAPIError",
    }
)
AI_SDK = MappingProxyType(dict.fromkeys(OPENAI, "APICallError"))

OPENAI_PYTHON = Client("openai-python", python("main", "openai_client.py"), "/v1", OPENAI)
OPENROUTER_PYTHON = Client(
    "openrouter-python", python("openrouter", "openrouter_client.py"), "/api/v1", OPENROUTER
)
LITELLM_PYTHON = Client(
    "litellm",
    python("main", "litellm_client.py"),
    "/api/v1",
    LITELLM,
    hides_in_streams=frozenset({"model", "cost"}),
)
PYDANTIC_AI_PYTHON = Client(
    "pydantic-ai", python("main", "pydantic_ai_client.py"), "/api/v1", PYDANTIC_AI
)
OPENAI_NODE = Client("openai-node", node("openai.mjs"), "/v1", OPENAI)
OPENROUTER_NODE = Client("openrouter-node", node("openrouter.mjs"), "/api/v1", OPENROUTER)
AI_SDK_NODE = Client("ai-sdk", node("ai-sdk.mjs"), "/api/v1", AI_SDK)

OPENAI_CLIENTS = (OPENAI_PYTHON, OPENAI_NODE)
OPENROUTER_CLIENTS = (OPENROUTER_PYTHON, OPENROUTER_NODE)
AGENTS = (PYDANTIC_AI_PYTHON, AI_SDK_NODE)
CLIENTS = (*OPENAI_CLIENTS, *OPENROUTER_CLIENTS, LITELLM_PYTHON, *AGENTS)


def only(*clients: Client) -> pytest.MarkDecorator:
    """Run a test with these clients instead of all of them."""
    return pytest.mark.parametrize("client", clients, ids=_name, indirect=True)


def _name(client: Client) -> str:
    return client.name
