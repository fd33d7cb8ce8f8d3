#!/usr/bin/env bash
# Tests and lints training/ (Python) in its own virtual environment, training/.venv, which it makes and keeps up to date.
# PYTHON chooses the interpreter. Arguments go to pytest.
set -euo pipefail
scripts="$(cd "$(dirname "$0")" && pwd)"
cd "$scripts/../training"
source "$scripts/training-venv.sh"
install_training test-training test

.venv/bin/python -m pytest "$@"
.venv/bin/python -m ruff check . ../examples
.venv/bin/python -m ruff format --check . ../examples
