"""Settings from `sophia.yaml`, the environment and the command line, the last one winning.

Every mistake is reported with its line, the problem and the expected form.
"""

import os
import re
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import yaml

from sophia.compose.keys import is_served
from sophia.config import (
    LEDGER_FILE,
    SANDBOX_FOLDER,
    Settings,
    StoreSettings,
    UpstreamModelSettings,
    UpstreamSettings,
    are_own_models_enough,
    is_sandbox_used,
)
from sophia.core.errors import ConfigError

_PATH_STEP = re.compile(r"([A-Za-z_]\w*)|\[(\d+|\.\.\.)\]")

# Short names beside SOPHIA_<SECTION>_<SETTING>.
ALIASES: dict[str, tuple[str, ...]] = {
    "SOPHIA_HOST": ("server", "host"),
    "SOPHIA_PORT": ("server", "port"),
    "SOPHIA_DATA_DIR": ("data_dir",),
    "FALLBACK_MODELS": ("routing", "fallback_models"),
    "MODEL_CACHE_SIZE": ("routing", "model_cache_size"),
}
_DEFAULTS = Settings()
OTHER_VARIABLES = ("SOPHIA_CONFIG", "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL")


def list_setting_variables() -> dict[str, tuple[str, ...]]:
    """Return every environment variable of a setting, with the setting's path."""
    names = dict(ALIASES)
    for path, section in list_sections():
        for field in section.__struct_fields__ if path else ():
            if not isinstance(getattr(section, field), msgspec.Struct):
                names["_".join(("SOPHIA", *path, field)).upper()] = (*path, field)
    return names


def list_sections(
    path: tuple[str, ...] = (), section: msgspec.Struct = _DEFAULTS
) -> Iterator[tuple[tuple[str, ...], msgspec.Struct]]:
    """Yield every group of settings with its defaults and its path, the root first."""
    yield path, section
    for name in section.__struct_fields__:
        if isinstance(inner := getattr(section, name), msgspec.Struct):
            yield from list_sections((*path, name), inner)


def find_settings_file(path: Path | None) -> Path | None:
    """Return the settings file: the given one, SOPHIA_CONFIG, or `sophia.yaml` if it exists."""
    if path is None and os.environ.get("SOPHIA_CONFIG"):
        return Path(os.environ["SOPHIA_CONFIG"])
    return path or (Path("sophia.yaml") if Path("sophia.yaml").exists() else None)


def load_command_settings(
    config: Path | None,
    data_dir: str | None,
    host: str | None = None,
    port: int | None = None,
    *,
    store: str | None = None,
    serving: bool = False,
    workers: str | None = None,
) -> Settings:
    """Return the effective settings of a command with these options; None for one not given.

    `serving` is for the command that fills the data folder; `workers` may be `auto`.

    Raises:
        ConfigError: the file is missing, or a setting in it or a variable is wrong.
    """
    file = find_settings_file(config)
    settings = Settings() if file is None else _read_file(file)
    tree: dict[str, Any] = msgspec.to_builtins(settings)
    for name, path in list_setting_variables().items():
        if text := os.environ.get(name):
            _set_value(tree, path, _parse_variable(text, attrgetter(".".join(path))(settings)))
            _convert(tree, lambda path, name=name: f"environment variable {name}")
    options = {
        ("data_dir",): data_dir,
        ("server", "host"): host,
        ("server", "port"): port,
        ("server", "workers"): _parse_workers(workers),
        ("store", "url"): store,
    }
    for path, value in options.items():
        if value is not None:
            _set_value(tree, path, value)
    settings = _convert(tree, lambda path: f"option for {path}")
    upstreams = tuple(each.with_preset() for each in settings.upstreams)
    for each in upstreams:
        if not each.name:
            raise ConfigError("`upstreams`: one has neither a `name` nor a `preset`")
        if each.preset and not each.models:
            raise ConfigError(f"upstream {each.name!r}: list the `models` to use of it")
    _check_deployments(upstreams)
    settings = msgspec.structs.replace(settings, upstreams=upstreams)
    own = are_own_models_enough(settings, os.environ)
    if own and not all(each.models for each in settings.upstreams or [UpstreamSettings(name="-")]):
        raise ConfigError("`catalogue.own_models_only` needs `upstreams`, each with `models`")
    catalogue = msgspec.structs.replace(settings.catalogue, own_models_only=own)
    settings = msgspec.structs.replace(settings, catalogue=catalogue)
    return _separate_sandbox(settings, serving=serving)


def _parse_workers(text: str | None) -> int | None:
    """Return a number of workers, 0 for `auto`. Raises ConfigError."""
    if text is None or text.isdigit():
        return None if text is None else int(text)
    if text != "auto":
        raise ConfigError(f"`--workers`: expected a number or auto, got {text!r}")
    return 0


def _check_deployments(upstreams: Sequence[UpstreamSettings]) -> None:
    """Raise ConfigError for an id that one upstream lists twice, or two at different terms."""
    terms: dict[str, object] = {}
    for each in upstreams:
        names = [model.id for model in each.models]
        for model in each.models:
            if names.count(model.id) > 1:
                raise ConfigError(f"upstream {each.name!r} lists {model.id!r} twice")
            own = msgspec.structs.replace(model, served_as=None, weight=1), sorted(each.modalities)
            if terms.setdefault(model.id, own) != own:
                raise ConfigError(
                    f"`upstreams`: {model.id!r} has other prices, limits or modalities at "
                    f"{each.name!r} than at an upstream before it; give one of them another id"
                )


def _separate_sandbox(settings: Settings, *, serving: bool) -> Settings:
    """Keep what the sandbox leaves, below the data folder, apart from real traffic.

    Without OpenRouter's key, other commands than the server's read the traffic of the server that
    is running, or the real one where there is any: the key is in the server's environment, not
    always in the operator's.
    """
    if not is_sandbox_used(settings, os.environ):
        return settings
    data = Path(settings.data_dir)
    sandbox = data if data.name == SANDBOX_FOLDER else data / SANDBOX_FOLDER
    if not serving and not settings.sandbox.enabled and data != sandbox:
        has_traffic = bool(settings.store.url) or (data / LEDGER_FILE).exists()
        if has_traffic and (settings.store.url or is_served(data) or not is_served(sandbox)):
            return settings
    # A store that others share never gets what the sandbox makes up.
    return msgspec.structs.replace(settings, data_dir=str(sandbox), store=StoreSettings())


def _read_file(path: Path) -> Settings:
    """Return the settings in a YAML file. Raises ConfigError with the line at fault."""
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
    return _convert(tree, lambda where: f"{path}: line {_find_line(root, where)}")


def _convert(tree: dict[str, Any], locate: Any) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        where = place.strip(".`")
        if unknown := re.search(r"unknown field `([^`]*)`", problem):
            full = f"{where}.{unknown[1]}".strip(".")
            known = ", ".join(_list_known_settings(where))
            raise ConfigError(
                f"{locate(full)}: there is no setting `{full}`; expected one of: {known}"
            ) from None
        problem = f"{problem[:1].lower()}{problem[1:]}"
        raise ConfigError(f"{locate(where)}: `{where}`: {problem}") from None


def _list_known_settings(path: str) -> tuple[str, ...]:
    if path.startswith("upstreams"):
        return (UpstreamModelSettings if ".models" in path else UpstreamSettings).__struct_fields__
    known = {".".join(steps): section for steps, section in list_sections()}
    return known[path].__struct_fields__ if path in known else ()


def _find_line(root: yaml.Node | None, path: str) -> int:
    """Return the line (from 1) of the setting at `path`, or of the nearest one around it."""
    node = root
    line = 1
    for name, index in _PATH_STEP.findall(path):
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


def _parse_variable(text: str, current: object) -> object:
    if isinstance(current, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    return None if text.lower() in ("none", "null") else text


def _set_value(tree: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        tree = tree[name]
    tree[path[-1]] = value
