#!/bin/sh
# Ask with curl; the answer, the model, the reason and the cost are in the JSON.
set -eu
base=${SOPHIA_BASE_URL:-http://localhost:8080/v1}
curl --silent --show-error --fail-with-body "$base/chat/completions" \
  --header "Authorization: Bearer $SOPHIA_API_KEY" \
  --header 'Content-Type: application/json' \
  --data '{"model": "sophia/auto", "messages": [{"role": "user", "content": "What does a router do?"}]}'
echo
