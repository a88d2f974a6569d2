"""`sophia chat` and `sophia route`: ask a running Sophia, or ask it whom it would ask."""

import shlex

import msgspec
import typer
from rich.text import Text

from sophia.cli import explained
from sophia.cli.client import Refused, events, post
from sophia.cli.screen import console, give_up, money, printable

_INTERRUPTED = 130


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Account(msgspec.Struct):
    decision_id: str
    model: str
    reason: str
    cost_usd: float
    attempts: int = 1
    saved_usd: float = 0.0
    warning: str | None = None


class _Error(msgspec.Struct):
    message: str


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    provider: str | None = None
    usage: _Usage | None = None
    sophia: _Account | None = None
    error: _Error | None = None


_chunk = msgspec.json.Decoder(_Chunk)


def chat(prompt: str, model: str, base_url: str, key: str | None, data_dir: str | None) -> None:
    """Print the answer as it comes, then what it cost and why that model gave it on stderr.

    Exits with 1 when there is no whole answer, with 130 when it is interrupted.
    """
    token = _key(key, data_dir)
    try:
        last = _print_answer(base_url, token, _body(prompt, model) | {"stream": True})
    except Refused as refusal:
        give_up(str(refusal))
    except KeyboardInterrupt:
        typer.secho("\nStopped; what was written until now is charged.", dim=True, err=True)
        raise typer.Exit(_INTERRUPTED) from None
    typer.echo()
    console(stderr=True).print(_account(last))


def route(  # noqa: PLR0913 - the options of the command
    prompt: str, model: str, base_url: str, key: str | None, json: bool, data_dir: str | None
) -> None:
    """Print the decision: candidates, attempts and who was left out. Exits with 1 without one."""
    try:
        with post(base_url, _key(key, data_dir), "/route", _body(prompt, model)) as response:
            body = response.read()
        if json:
            typer.echo(msgspec.json.format(body, indent=2).decode())
        else:
            explained.show(body)
    except Refused as refusal:
        give_up(str(refusal))
    except msgspec.MsgspecError:
        give_up(f"{base_url} answered something that is no decision; is it another release?")


def _body(prompt: str, model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}]}


def _key(key: str | None, data_dir: str | None) -> str:
    if not key or not key.strip():
        folder = f" --data-dir {shlex.quote(data_dir)}" if data_dir else ""
        give_up(
            f"There is no key. Make one:  sophia keys create --name me{folder}\n"
            "and pass it with --key, or set SOPHIA_API_KEY to it.",
            2,
        )
    return key.strip()


def _print_answer(base_url: str, key: str, body: dict[str, object]) -> _Chunk:
    """Print the text as it comes and return the last chunk, the one with the account."""
    last = _Chunk()
    begun = False
    try:
        with post(base_url, key, "/chat/completions", body) as response:
            for data in events(response):
                last = _chunk.decode(data)
                if last.error is not None:
                    raise Refused(last.error.message)
                text = "".join(choice.delta.content or "" for choice in last.choices)
                begun = begun or bool(text)
                # The answer is a stranger's text: it may not command the terminal.
                typer.echo(printable(text), nl=False)
    except (Refused, msgspec.MsgspecError) as error:
        if begun:
            typer.echo()
        raise Refused(str(error)) from None
    return last


def _account(last: _Chunk) -> Text:
    told, usage = last.sophia, last.usage or _Usage()
    tokens = f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens"
    if told is None:
        return Text(tokens, style="dim")
    parts = [told.model, money(told.cost_usd), tokens]
    if told.saved_usd > 0:
        parts.append(f"saved {money(told.saved_usd)}")
    if told.attempts > 1:
        parts.append(f"{told.attempts} attempts")
    parts.append(told.decision_id)
    line = Text(" · ".join(parts), style="dim")
    line.append(f"\n{told.reason}")
    if last.provider == "Sandbox":
        line.append(" The sandbox wrote this; no real model was asked.")
    if told.warning:
        line.append(f"\n{told.warning}", style="yellow")
    return line
