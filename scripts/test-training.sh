#!/usr/bin/env bash
# Tests and lints training/ (Python) in its own virtual environment, training/.venv, which it makes and keeps up to date.
# PYTHON chooses the interpreter. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../training"

if [[ ! -f pyproject.toml ]]; then
  echo "test-training: training/pyproject.toml is missing" >&2
  exit 1
fi

export PIP_RETRIES="${PIP_RETRIES:-1}" # a package index that cannot be reached should fail soon
export PIP_DISABLE_PIP_VERSION_CHECK=1

stamp=.venv/installed-pyproject.toml
if ! cmp --silent pyproject.toml "$stamp"; then
  echo "test-training: installing training[test] into training/.venv"
  [[ -x .venv/bin/python ]] || "${PYTHON:-python3}" -m venv .venv
  .venv/bin/python -m pip install --quiet --editable '.[test]'
  cp pyproject.toml "$stamp"
fi

.venv/bin/python -m pytest "$@"
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
