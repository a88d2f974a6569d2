#!/bin/sh
# Ask with the command llm, set up in a folder of its own by llm_cli.yaml.
set -eu
base=${SOPHIA_BASE_URL:-http://localhost:8080/v1}
LLM_USER_PATH=$(mktemp -d)
export LLM_USER_PATH
trap 'rm -rf "$LLM_USER_PATH"' EXIT
sed "s|http://localhost:8080/v1|$base|" "$(dirname "$0")/llm_cli.yaml" >"$LLM_USER_PATH/extra-openai-models.yaml"
llm --model sophia --key "$SOPHIA_API_KEY" 'What does a router do?'
llm logs --count 1 --json | python3 -c 'import json, sys
answer = json.load(sys.stdin)[0]["response_json"]
print(answer["model"], "${:.6f}".format(answer["usage"]["cost"]))'
