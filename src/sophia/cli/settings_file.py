"""Read the settings: `sophia.yaml`, then the environment, then the command line; once, checked.

Every mistake is reported with its line, what is wrong and what is expected.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from sophia.config import ConfigError, LocalModel, Settings, UpstreamSettings

_PATH = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"([A-Za-z_]\w*)|\[(\d+|\.\.\.)\]")

# The plan's own names and the usual short ones, beside SOPHIA_<SECTION>_<SETTING>.
ALIASES: dict[str, tuple[str, ...]] = {
    "SOPHIA_HOST": ("server", "host"),
    "SOPHIA_PORT": ("server", "port"),
    "SOPHIA_DATA_DIR": ("data_dir",),
    "FALLBACK_MODELS": ("routing", "fallback_models"),
    "MODEL_CACHE_SIZE": ("routing", "model_cache_size"),
}
OTHER_VARIABLES = ("SOPHIA_CONFIG", "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL")
_LISTS = frozenset(
    {
        ("routing", "fallback_models"),
        ("routing", "models"),
        ("cascade", "webhooks"),
        ("learning", "judge", "models"),
    }
)


def variables() -> dict[str, tuple[str, ...]]:
    """Return every environment variable that sets something, with the setting's path."""
    names = dict(ALIASES)
    for path, section in sections():
        for field in section.__struct_fields__ if path else ():
            if not isinstance(getattr(section, field), msgspec.Struct):
                names["_".join(("SOPHIA", *path, field)).upper()] = (*path, field)
    return names


def sections() -> Iterator[tuple[tuple[str, ...], msgspec.Struct]]:
    """Yield every group of settings as it is by default, with its path; the whole of it first."""
    waiting: list[tuple[tuple[str, ...], msgspec.Struct]] = [((), Settings())]
    while waiting:
        path, section = waiting.pop(0)
        yield path, section
        inner = [(name, getattr(section, name)) for name in section.__struct_fields__]
        waiting[:0] = [
            ((*path, name), value) for name, value in inner if isinstance(value, msgspec.Struct)
        ]


def read(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[tuple[str, ...], object]
) -> Settings:
    """Return the settings of a file, the environment and the command line, the last one winning.

    Args:
        path: the file, or None for `sophia.yaml` in the working folder if there is one.
        environ: the process environment.
        overrides: settings by path, such as ("server", "port").

    Raises:
        ConfigError: a file that is missing or wrong, or a variable that is.
    """
    if path is None and environ.get("SOPHIA_CONFIG"):
        path = Path(environ["SOPHIA_CONFIG"])
    found = path or (Path("sophia.yaml") if Path("sophia.yaml").exists() else None)
    settings = Settings() if found is None else read_file(found)
    tree: dict[str, Any] = msgspec.to_builtins(settings)
    for name, place in variables().items():
        if environ.get(name):
            _put(tree, place, _from_text(environ[name], place))
            _convert(tree, lambda path, name=name: f"environment variable {name}")
    for place, value in overrides.items():
        if value is not None:
            _put(tree, place, value)
    return _convert(tree, lambda path: f"option for {path}")


def read_file(path: Path) -> Settings:
    """Return the settings in a YAML file. Raises ConfigError with every line at fault."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{path}: line {line}: {problem}; expected YAML") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: line 1: expected settings as `name: value`")
    return _convert(tree, lambda where: f"{path}: line {_line(root, where)}")


def _convert(tree: dict[str, Any], place: Any) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        where = (match["path"] or "") if match else ""
        problem = match["problem"] if match else str(error)
        unknown = re.search(r"unknown field `([^`]*)`", problem)
        if unknown is not None:
            full = f"{where}.{unknown[1]}".strip(".")
            known = ", ".join(_siblings(where))
            raise ConfigError(
                f"{place(full)}: there is no setting `{full}`; expected one of: {known}"
            ) from None
        said = f"{problem[:1].lower()}{problem[1:]}"
        raise ConfigError(f"{place(where)}: `{where}`: {said}") from None


def _siblings(path: str) -> tuple[str, ...]:
    if path.startswith("upstreams"):
        return (LocalModel if ".models" in path else UpstreamSettings).__struct_fields__
    known = {".".join(steps): section for steps, section in sections()}
    return known[path].__struct_fields__ if path in known else ()


def _line(root: yaml.Node | None, path: str) -> int:
    """Return the line (from 1) of the setting at `path`, or of the nearest thing around it."""
    node = root
    line = 1
    for name, index in _STEP.findall(path):
        following = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == name:
                    line, following = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and index.isdigit():
            following = node.value[int(index)] if int(index) < len(node.value) else None
            line = following.start_mark.line + 1 if following is not None else line
        if following is None:
            break
        node = following
    return line


def _from_text(text: str, place: tuple[str, ...]) -> object:
    if place in _LISTS:
        return [part.strip() for part in text.split(",") if part.strip()]
    return None if text.lower() in ("none", "null") else text


def _put(tree: dict[str, Any], place: tuple[str, ...], value: object) -> None:
    for name in place[:-1]:
        tree = tree.setdefault(name, {})
    tree[place[-1]] = value
