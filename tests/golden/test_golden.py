"""What an operator sees of a fixed hour of traffic stays as it was recorded.

`GOLDEN=record make test ARGS=tests/golden` records it anew; the difference is part of the review.
"""

import json
import os
from pathlib import Path

import pytest
from traffic import observe

from gateway import prepare
from sophia.sandbox import ScriptedUpstream

FOLDER = Path(__file__).parent / "recorded"


async def test_the_fixed_traffic_is_seen_as_recorded(
    tmp_path: Path, migrated: Path, up: ScriptedUpstream
) -> None:
    prepare(tmp_path / "data", migrated)
    seen = await observe(tmp_path / "data", up)
    for name, value in seen.items():
        path = FOLDER / f"{name}.json"
        text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        if os.environ.get("GOLDEN") == "record":
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        if text != path.read_text():
            pytest.fail(f"{name}: differs from {path}")
