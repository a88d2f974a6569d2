"""Sources in a folder of outcome tables, and `mix`, which joins two of them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lab.evaluation.tables import InvalidTable, OutcomeTable, is_table, join_tables, read_table

MIX = "mix"
MIX_PARTS = ("zeroeval", "bfcl")
MULTI_TASK = (MIX, "zeroeval", "bfcl", "mmlu_pro", "routerbench_lite", "paretobandit")
# Names of the same models in bfcl. Of models with and without native tool calls the native one is
# used: otherwise gpt-4o-2024-08-06 and Mistral Large answer only every fourth question.
MIX_NAMES = {
    "gemini-1.5-flash": "gemini-1.5-flash-preview-0514",
    "gemini-1.5-pro": "gemini-1.5-pro-preview-0514",
    "gpt-4o-2024-08-06": "gpt-4o-2024-08-06-FC",
    "Mistral-Large-2": "mistral-large-2407-FC-Auto",
}


def list_sources(folder: Path) -> list[str]:
    """Return the sources of a folder; the multi-task ones first."""
    found = [path.name for path in sorted(folder.iterdir()) if is_table(path)]
    if (folder / "priors/mix2024.json").is_file() and set(MIX_PARTS) <= set(found):
        found.append(MIX)
    return [*(name for name in MULTI_TASK if name in found), *sorted(set(found) - set(MULTI_TASK))]


def list_files(folder: Path, name: str) -> list[Path]:
    """Return the files of a source."""
    parts: Sequence[str] = MIX_PARTS if name == MIX else (name,)
    return [path for part in parts for path in sorted((folder / part).iterdir()) if path.is_file()]


def read_source(folder: Path, name: str) -> OutcomeTable:
    """Read a source of a folder.

    Raises:
        InvalidTable: its arms cannot be compared.
    """
    if name != MIX:
        return read_table(folder / name)
    arms = tuple(json.loads((folder / "priors/mix2024.json").read_text()))
    first, second = (read_table(folder / part) for part in MIX_PARTS)
    renamed = [MIX_NAMES.get(arm, arm) for arm in arms]
    missing = [arm for arm in arms if arm not in first.arms]
    missing += [arm for arm in renamed if arm not in second.arms]
    if missing:
        raise InvalidTable(f"{MIX}: {', '.join(missing)} cannot be compared in both sources.")
    return join_tables(MIX, [first, replace(second.select_arms(renamed), arms=arms)], arms)
