"""Options that several commands have, or whose help is long."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None, typer.Option("--config", help="Settings file; default: sophia.yaml if it exists.")
]
DataDir = Annotated[
    str | None, typer.Option("--data-dir", help="Folder for the ledger, keys and catalogue.")
]
BaseUrl = Annotated[
    str,
    typer.Option("--base-url", envvar="SOPHIA_BASE_URL", help="A running Sophia."),
]
Key = Annotated[str | None, typer.Option("--key", envvar="SOPHIA_API_KEY", help="Inference key.")]
Challenge = Annotated[
    bool,
    typer.Option(
        "--challenge", help="Take the next step of every challenge that is due, and list them."
    ),
]
Challengers = Annotated[
    bool,
    typer.Option("--challengers", help="List who challenges the learned policy, and how far."),
]
Benchmarks = Annotated[
    list[str] | None,
    typer.Option(
        help="Believe this benchmark file or folder of outcomes of models that are new; may be "
        "repeated; `shipped` goes back."
    ),
]
Against = Annotated[
    list[str] | None,
    typer.Option(help="A known model to probe beside it; may be repeated. Default: two."),
]
