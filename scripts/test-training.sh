#!/usr/bin/env bash
# Tests and lints training/ (Python) in the virtual environment training/.venv, which it creates and updates.
# PYTHON selects the interpreter. Arguments go to pytest.
set -euo pipefail
scripts="$(cd "$(dirname "$0")" && pwd)"
cd "$scripts/../training"
source "$scripts/training-venv.sh"
install_training test-training test

.venv/bin/python -m pytest "$@"
.venv/bin/python -m ruff check . ../examples
.venv/bin/python -m ruff format --check . ../examples
