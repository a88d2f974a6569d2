"""Write docs/reference from the code: what is declared is documented, or this script fails.

`make docs` writes the pages; `--check` writes nothing and ends with 1 where a page is out of date.
"""

import argparse
import ast
import asyncio
import inspect
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
import typer

import sophia
from sophia import config
from sophia.cli import settings_file
from sophia.cli.main import app
from sophia.compose import compose
from sophia.core import errors, failures, ports
from sophia.http.v1 import bodies
from sophia.http.v1.openapi import document

SOURCE = Path(sophia.__file__).parent
TARGET = Path(__file__).parents[1] / "docs" / "reference"
MADE = "<!-- Made by `make docs` from the code; change the code instead. -->\n"
ANSWER_HEADERS = {
    "x-request-id": "The request, as logs and errors name it.",
    "x-sophia-decision-id": "The decision, for `GET /v1/decisions/{id}` and `POST /v1/feedback`.",
    "x-sophia-model": "The model that answers.",
    "x-sophia-policy": "The rule or policy that chose it; `named` when the caller did.",
    "x-sophia-attempts": "How many models were tried.",
    "x-sophia-cost-usd": "What a whole answer cost; a stream tells it at its end.",
    "x-sophia-warning": "What the caller should know, such as that a retired model was replaced.",
    "x-sophia-fault": "On errors: `caller`, `policy`, `upstream` or `sophia`.",
}


def main() -> None:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; 1 if a page differs")
    check = parser.parse_args().check
    stale = []
    for name, text in pages():
        path = TARGET / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not check:
            TARGET.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if check and stale:
        sys.exit(f"Out of date: {', '.join(stale)}. `make docs` writes them anew.")
    print(f"{', '.join(stale) or 'nothing'} written" if not check else "The reference is right.")


def pages() -> Iterator[tuple[str, str]]:
    """Yield each page's file name and text."""
    for name, title, write in (
        ("settings.md", "Settings", settings),
        ("http.md", "HTTP API", http),
        ("errors.md", "Errors", error_types),
        ("cli.md", "Commands", commands),
        ("metrics.md", "Metrics", metrics),
        ("ports.md", "Ports", seams),
    ):
        yield name, f"# {title}\n\n{MADE}\n{write().strip()}\n"


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table. Raises ValueError for a cell that was left empty on purpose."""
    for row in rows:
        if not row[-1].strip():
            raise ValueError(f"{row[0]} is not documented")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        cells = (cell.replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"


def settings() -> str:
    """Describe every field of the settings' tree."""
    text = (
        "`sophia serve --config FILE` reads a YAML file, without it `sophia.yaml` in the working "
        "folder if there is one. Environment variables win over the file, options of the command "
        "over both. A mistake is reported with its line; an unknown name is one.\n\n"
    )
    variables: dict[tuple[str, ...], list[str]] = {}
    for name, place in settings_file.variables().items():
        variables.setdefault(place, []).append(f"`{name}`")
    sections = [(steps, type(section)) for steps, section in settings_file.sections()]
    sections.append((("upstreams[]",), config.UpstreamSettings))
    sections.append((("upstreams[].models[]",), config.LocalModel))
    inner = {steps for steps, _ in sections}
    for steps, kind in sections:
        path, said = ".".join(steps), attribute_docs(kind)
        rows = []
        for field in msgspec.structs.fields(kind):
            place = (*steps, field.name)
            if place in inner:
                continue
            rows.append(
                (
                    f"`{field.name}`",
                    shown(field.type),
                    f"`{plain(field.default)}`" if not field.required else "required",
                    ", ".join(variables.get(place, [])),
                    said.get(field.name, ""),
                )
            )
        text += f"## {path or 'Top level'}\n\n{inspect.getdoc(kind)}\n\n"
        text += table(("setting", "type", "default", "variable", "meaning"), rows)
    return text + (
        "## Other variables\n\n"
        + table(
            ("variable", "meaning"),
            [(f"`{name}`", OTHER_VARIABLES.get(name, "")) for name in settings_file.OTHER_VARIABLES]
            + [(f"`{name}`", meaning) for name, meaning in STANDARD_VARIABLES.items()],
        )
    )


OTHER_VARIABLES = {
    "SOPHIA_CONFIG": "The settings file, as `--config`.",
    "OPENROUTER_API_KEY": "Your key for OpenRouter; without it the sandbox plays OpenRouter.",
    "OPENROUTER_BASE_URL": "Another place that speaks OpenRouter's API.",
}
STANDARD_VARIABLES = {
    "HTTPS_PROXY, HTTP_PROXY, NO_PROXY": "Proxies towards upstreams; in small letters too.",
    "SSL_CERT_FILE": "Certificate authorities for all upstreams, as OpenSSL reads it.",
    "OTEL_*": "OpenTelemetry's own variables, with the `otel` extra.",
    "SOPHIA_API_KEY, SOPHIA_BASE_URL": "Key and address for `sophia chat` and `sophia route`.",
}


def attribute_docs(kind: type) -> dict[str, str]:
    """Return the docstrings that stand below a class's fields."""
    tree = ast.parse(inspect.getsource(kind)).body[0]
    found: dict[str, str] = {}
    name = ""
    for node in tree.body if isinstance(tree, ast.ClassDef) else ():
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name] = str(node.value.value)
    return found


def shown(kind: Any) -> str:
    """Return a type as words, with its bounds."""
    origin = get_origin(kind)
    if origin is Annotated:
        base, *metas = get_args(kind)
        return shown(base) + "".join(bounds(meta) for meta in metas)
    if origin is Union or type(kind).__name__ == "UnionType":
        return " or ".join("none" if one is type(None) else shown(one) for one in get_args(kind))
    if origin is tuple or origin is list:
        return f"list of {shown(get_args(kind)[0])}"
    if origin is not None:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        kind.__name__, kind.__name__
    )


def bounds(meta: msgspec.Meta) -> str:
    """Return the bounds of a value as words."""
    said = {"ge": "at least", "gt": "over", "le": "at most"}
    limits = [(word, getattr(meta, key)) for key, word in said.items()]
    parts = [f"{word} {limit:,}" for word, limit in limits if limit is not None]
    return f" ({', '.join(parts)})" if parts else ""


def plain(value: object) -> str:
    """Return a default as YAML would write it."""
    if value == ():
        return "[]"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def http() -> str:
    """Describe every route of the OpenAPI document, the headers and the hints."""
    text = (
        "The data plane follows OpenAI's and OpenRouter's shapes; unknown fields of a body reach "
        "the upstream unchanged. Every `/v1` route stands under `/api/v1` too. Keys go into "
        "`Authorization: Bearer KEY` or `x-api-key`. The whole description, OpenAPI 3.1, is at "
        "`GET /openapi.json`.\n\n## Routes\n\n"
    )
    rows = []
    for path, operations in document()["paths"].items():
        for method, told in operations.items():
            key = "no key" if told.get("security") == [] else "key"
            about = f"{told['summary']}. {told.get('description', '')}".strip()
            rows.append((f"`{method.upper()} {path}`", key, about))
    text += table(("route", "needs", "what it does"), rows)
    text += "## Routing hints\n\nAn object `sophia` in the body, or headers; all optional.\n\n"
    said = attribute_docs(bodies.SophiaHints)
    text += table(
        ("in `sophia`", "header", "value", "meaning"),
        [
            (
                f"`{field.name}`",
                f"`x-sophia-{field.name.replace('_', '-')}`",
                shown(field.type).removesuffix(" or none"),
                said.get(field.name, ""),
            )
            for field in msgspec.structs.fields(bodies.SophiaHints)
        ],
    )
    text += "## Headers of answers\n\n"
    sent = [(f"`{name}`", ANSWER_HEADERS.get(name, "")) for name in sent_headers()]
    text += table(("header", "meaning"), sent)
    return text + (
        "## Names of models\n\n`sophia/auto` leaves the choice to Sophia; `sophia/auto:cheap`, "
        "`sophia/auto:fast` and `sophia/auto:best` say what matters most; `sophia/RULE` forces a "
        "routing rule. Every other name is a model of the catalogue and is served as asked; "
        "`models: [...]` in the body names substitutes for it.\n"
    )


def sent_headers() -> list[str]:
    """Return the headers of Sophia's own that the code of `http` writes, in the table's order."""
    written: set[str] = set()
    for path in (SOURCE / "http").rglob("*.py"):
        literals = [
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, bytes)
        ]
        for literal in literals:
            written |= set(re.findall(rb"(?:x-sophia-[a-z]+[a-z-]*|x-request-id)", literal))
    names = {name.decode() for name in written}
    known = [name for name in ANSWER_HEADERS if name in names]
    return known + sorted(names - set(known))


def error_types() -> str:
    """Describe the tree of errors and the causes of failed attempts."""
    tree = inspect.getdoc(errors) or ""
    rows = [
        (
            f"`{kind.__name__}`",
            str(kind.status),
            f"`{kind.error_type}`",
            kind.fault,
            inspect.getdoc(kind) or "",
        )
        for kind in classes(errors, errors.SophiaError)
    ]
    causes = [(f"`{kind}`", CAUSES.get(str(kind), "")) for kind in failures.FailureKind]
    return (
        "An error body is `{\"error\": {message, type, param, code, metadata}}`: `code` is the "
        "HTTP status as an integer, `metadata.error_type` the kind of error, `metadata.fault` "
        "whose fault it is, `metadata.request_id` what to quote. The message says what to "
        "change.\n\n"
        "After the first piece of a stream the status cannot change any more: the last event then "
        "carries `error`, its choice has `finish_reason: \"error\"`, and no `[DONE]` follows.\n\n"
        f"```text\n{tree}\n```\n\n"
        + table(("error", "status", "`error_type`", "fault", "meaning"), rows)
        + "`AllAttemptsFailed` is 429 `rate_limit_exceeded`, 503 `provider_overloaded`, 504 "
        "`timeout` or 502 `provider_unavailable` by what its attempts died of; "
        "`metadata.attempts` lists each with its model and cause. When an upstream refuses the "
        "request itself, that is told at once, with its own status and `error_type`.\n\n"
        "## Causes of failed attempts\n\n"
        + table(("cause", "meaning"), causes)
    )


CAUSES = {
    "dns": "The upstream's name cannot be resolved.",
    "refused": "It does not accept connections.",
    "tls": "Its certificate or the handshake is wrong.",
    "connect_timeout": "No connection in time.",
    "reset": "The connection broke before the answer began.",
    "first_byte_timeout": "No head of an answer in time.",
    "content_timeout": "A head, but no content in time.",
    "stall": "Content came, then nothing for too long.",
    "total_timeout": "The whole attempt took too long.",
    "cut": "The answer ended before it was complete.",
    "malformed": "What came is not in the shape that was agreed.",
    "too_large": "The answer is longer than Sophia takes.",
    "empty": "The answer has no content.",
    "status": "An error status; the status is named with it.",
    "in_band": "An error inside an answer with status 200.",
    "pool_exhausted": "All connections to the upstream are busy.",
}


def commands() -> str:
    """Describe every command with its arguments and options."""
    return "".join(described("sophia", typer.main.get_command(app)))


def described(name: str, command: Any) -> Iterator[str]:
    """Yield a command and those below it."""
    inner = getattr(command, "commands", {})
    runs = not inner or command.invoke_without_command
    if runs or name == "sophia":
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        usage = " ".join([name, *(one.name.upper() for one in arguments)])
        yield f"## `{usage}`\n\n{command.help or ''}\n\n"
        rows = [parameter(one) for one in command.params if not one.hidden]
        if rows and runs:
            yield table(("option", "value", "default", "meaning"), rows)
    for part, below in inner.items():
        if not below.hidden:
            yield from described(f"{name} {part}", below)


def parameter(one: Any) -> tuple[str, ...]:
    """Return the row of one argument or option."""
    flags = [*one.opts, *one.secondary_opts]
    names = one.name.upper() if one.param_type_name == "argument" else ", ".join(flags)
    kind = shown(one.type_descriptor.annotation) if not getattr(one, "is_flag", False) else ""
    kind = {"Path": "file", "list of Path": "paths", "list of text": "texts"}.get(kind, kind)
    default = "" if one.default is None else f"`{plain(one.default)}`"
    default = "required" if one.required else default
    about = (one.help or "") + (f" Or the variable `{one.envvar}`." if one.envvar else "")
    return f"`{names}`", kind, "" if kind == "" else default, about


def metrics() -> str:
    """Describe every metric of a composed Sophia."""
    sinks = asyncio.run(composed_sinks())
    rows = []
    for family in sinks[0].registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))
        rows.append((f"`{name}`", family.type, labels, family.documentation))
    return (
        "`GET /metrics` answers in Prometheus' text format, without a key. Labels are bounded by "
        "the catalogue. OpenTelemetry's GenAI metrics are exported beside these when it is "
        "configured (see [how to observe](../how-to/observe.md)).\n\n"
        + table(("metric", "type", "labels", "meaning"), rows)
    )


async def composed_sinks() -> Any:
    """Return the sinks of a Sophia that asks nobody."""
    with tempfile.TemporaryDirectory() as folder:
        whole = await compose(config.Settings(data_dir=folder), {"OPENROUTER_API_KEY": "none"})
        await whole.close()
        return whole.sinks


def seams() -> str:
    """Describe the Protocols of core/ports.py."""
    text = (
        "A port is a seam: a Protocol in `core/ports.py` with more than one implementation, all of "
        "which pass the same contract tests. `compose/` says which one is used.\n\n"
    )
    for kind in classes(ports, object):
        text += f"## {kind.__name__}\n\n{inspect.getdoc(kind)}\n\n```python\n"
        for name, method in vars(kind).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                prefix = "async " if inspect.iscoroutinefunction(method) else ""
                text += f"{prefix}def {name}{signature(method)}\n"
                if doc := inspect.getdoc(method):
                    text += f"    # {doc}\n"
        text += "```\n\n"
    return text


def signature(method: Any) -> str:
    """Return a signature without module names."""
    return re.sub(r"(?:[a-z_]\w*\.)+([A-Za-z])", r"\1", str(inspect.signature(method)))


def classes(module: Any, base: type) -> list[Any]:
    """Return the classes that `module` defines, in the order they stand there."""
    return [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, base) and kind.__module__ == module.__name__
    ]


if __name__ == "__main__":
    main()
