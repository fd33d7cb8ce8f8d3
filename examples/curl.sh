#!/usr/bin/env bash
# The HTTP API by curl.   examples/curl.sh [http://127.0.0.1:8080]
set -euo pipefail
url="${1:-http://127.0.0.1:8080}"
post() { curl --fail-with-body --silent --no-buffer "$url$1" -H 'content-type: application/json' -d "$2"; }

# a stream, which ends with data: [DONE]
post /v1/completions '{"model":"default","prompt":"export interface User {\n","max_tokens":20,"seed":1,"stream":true}'

# a number by a regular expression, with the model's own log-probabilities
post /v1/completions '{"model":"default","prompt":"const port = ","structured_outputs":{"regex":"[1-9][0-9]{3}"},"logprobs":1,"seed":1}'
echo
# what the model thinks of a text
post /v1/completions '{"model":"default","prompt":"export class Foo","echo":true,"logprobs":0,"max_tokens":1,"seed":1}'
echo
# token ids
post /tokenize '{"prompt":"export interface User {"}'
echo
# a wrong field is named: 400, `temperature` must be in [0, 2], got 3
post /v1/completions '{"prompt":"a","temperature":3}' || true
echo
