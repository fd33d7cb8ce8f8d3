#!/usr/bin/env bash
# Runs a training recipe (training/recipes) in the virtual environment training/.venv, which it creates and updates:
#
#   npm run train -- tiny                    then: npm start -- --model training/work/models/tiny
#   npm run train -- cpu-default --plan
#
# Arguments go to `ptp-train run`, in training/. PYTHON selects the interpreter.
set -euo pipefail
scripts="$(cd "$(dirname "$0")" && pwd)"
cd "$scripts/../training"
source "$scripts/training-venv.sh"
install_training train

exec .venv/bin/ptp-train run "$@"
