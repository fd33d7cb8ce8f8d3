#!/usr/bin/env bash
# Runs a training recipe (training/recipes) in training/.venv, which it makes and keeps up to date:
#
#   npm run train -- tiny                    then: npm start -- --models training/work/models/tiny
#   npm run train -- cpu-default --plan
#
# Arguments go to `ptp-train run`, which works in training/. PYTHON chooses the interpreter.
set -euo pipefail
scripts="$(cd "$(dirname "$0")" && pwd)"
cd "$scripts/../training"
source "$scripts/training-venv.sh"
install_training train

exec .venv/bin/ptp-train run "$@"
