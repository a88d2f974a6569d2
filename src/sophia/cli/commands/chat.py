"""`sophia chat` and `sophia route`: ask a running Sophia for an answer or for its decision."""

import sys
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from sophia.cli.client import ErrorDetail, RequestFailed, open_response, read_events, require_key
from sophia.cli.options import DEFAULT_BASE_URL, BaseUrl, DataDir, Json, Key
from sophia.cli.terminal import (
    build_console,
    exit_with_error,
    format_money,
    strip_control_characters,
)

_EXIT_INTERRUPTED = 130

Model = Annotated[str, typer.Option(help="Model to ask for.")]


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _RoutingInfo(msgspec.Struct, kw_only=True):
    decision_id: str
    model: str
    reason: str
    cost_usd: float
    attempts: int = 1
    saved_usd: float = 0.0
    warning: str | None = None


class _Chunk(msgspec.Struct, kw_only=True):
    choices: list[_Choice] = []
    provider: str | None = None
    usage: _Usage | None = None
    sophia: _RoutingInfo | None = None
    error: ErrorDetail | None = None


def chat(
    prompt: Annotated[list[str], typer.Argument(help="What to ask.")],
    model: Model = "sophia/auto",
    base_url: BaseUrl = DEFAULT_BASE_URL,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Ask a running Sophia.

    Shows the answer as it streams, then model, cost and reason. Exits with 1 when there is no
    complete answer, with 130 when it is interrupted.
    """
    token = require_key(key, data_dir)
    try:
        last = _print_answer(base_url, token, _build_body(prompt, model) | {"stream": True})
    except RequestFailed as error:
        exit_with_error(str(error))
    except KeyboardInterrupt:
        typer.secho("\nStopped; what was written until now is charged.", dim=True, err=True)
        raise typer.Exit(_EXIT_INTERRUPTED) from None
    typer.echo()
    build_console(stderr=True).print(_format_summary(last))


def route(
    prompt: Annotated[list[str], typer.Argument(help="What would be asked; - reads a text.")],
    model: Model = "sophia/auto",
    base_url: BaseUrl = DEFAULT_BASE_URL,
    key: Key = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Explain which model would answer, and why, without asking it."""
    from sophia.cli.route_output import print_decision

    token = require_key(key, data_dir)
    try:
        with open_response(base_url, token, "/route", _build_body(prompt, model)) as response:
            body = response.read()
        if json:
            typer.echo(msgspec.json.format(body, indent=2).decode())
        else:
            print_decision(body)
    except RequestFailed as error:
        exit_with_error(str(error))
    except (msgspec.MsgspecError, KeyError):
        exit_with_error(f"The answer of {base_url} is no decision; is it another release?")


def _build_body(prompt: list[str], model: str) -> dict[str, object]:
    text = sys.stdin.read() if prompt == ["-"] else " ".join(prompt)
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def _print_answer(base_url: str, key: str, body: dict[str, object]) -> _Chunk:
    """Print the text as it streams and return the last chunk, which has usage and cost."""
    last = _Chunk()
    begun = False
    try:
        with open_response(base_url, key, "/chat/completions", body) as response:
            for data in read_events(response):
                last = msgspec.json.decode(data, type=_Chunk)
                if last.error is not None:
                    raise RequestFailed(last.error.message)
                text = "".join(choice.delta.content or "" for choice in last.choices)
                begun = begun or bool(text)
                # Untrusted text may not command the terminal.
                typer.echo(strip_control_characters(text), nl=False)
    except (RequestFailed, msgspec.MsgspecError) as error:
        if begun:
            typer.echo()
        raise RequestFailed(str(error)) from None
    return last


def _format_summary(last: _Chunk) -> Text:
    info, usage = last.sophia, last.usage or _Usage()
    tokens = f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens"
    if info is None:
        return Text(tokens, style="dim")
    parts = [info.model, format_money(info.cost_usd), tokens]
    if info.saved_usd > 0:
        parts.append(f"saved {format_money(info.saved_usd)}")
    if info.attempts > 1:
        parts.append(f"{info.attempts} attempts")
    parts.append(info.decision_id)
    line = Text(" · ".join(parts), style="dim")
    line.append(f"\n{info.reason}")
    if last.provider == "Sandbox":
        line.append(" The sandbox wrote this; no real model was asked.")
    if info.warning:
        line.append(f"\n{info.warning}", style="yellow")
    return line
