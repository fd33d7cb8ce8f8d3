#!/usr/bin/env bash
# The HTTP API with curl.
#   examples/curl.sh [http://127.0.0.1:8080]
set -euo pipefail
url="${1:-http://127.0.0.1:8080}"
post() { curl --fail-with-body --silent --no-buffer "$url$1" -H 'content-type: application/json' -d "$2"; }

# Streaming: the last event is data: [DONE]
post /v1/completions '{"model":"default","prompt":"export interface User {","max_tokens":20,"seed":1,"stream":true}'

# A number that matches a regular expression, with log probabilities
post /v1/completions '{"model":"default","prompt":"const port = ","structured_outputs":{"regex":"[1-9][0-9]{3}"},"logprobs":1,"seed":1}'
echo
# Log probabilities of a given text
post /v1/completions '{"model":"default","prompt":"export class Foo","echo":true,"logprobs":0,"max_tokens":1,"seed":1}'
echo
# Token ids of a text
post /tokenize '{"prompt":"export interface User {"}'
echo
# An error names the field: 400, `temperature` must be in [0, 2], got 3
post /v1/completions '{"prompt":"a","temperature":3}' || true
echo
