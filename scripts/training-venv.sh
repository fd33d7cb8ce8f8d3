# Sourced in training/: creates the virtual environment .venv, or updates it to pyproject.toml.
#
#   install_training NAME [EXTRA]     installs the package with its optional dependencies EXTRA, once per NAME
#
# PYTHON selects the interpreter.
export PIP_RETRIES="${PIP_RETRIES:-1}" # fail soon if the package index is unreachable
export PIP_DISABLE_PIP_VERSION_CHECK=1

install_training() {
  local name="$1" extra="${2:-}"
  local stamp=".venv/installed-$name-pyproject.toml"
  if [[ ! -f pyproject.toml ]]; then
    echo "$name: training/pyproject.toml is missing" >&2
    exit 1
  fi
  cmp --silent pyproject.toml "$stamp" && return
  echo "$name: installing training${extra:+[$extra]} into training/.venv" >&2
  [[ -x .venv/bin/python ]] || "${PYTHON:-python3}" -m venv .venv
  .venv/bin/python -m pip install --quiet --editable ".${extra:+[$extra]}"
  cp pyproject.toml "$stamp"
}
