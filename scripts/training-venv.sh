# Sourced in training/: makes the virtual environment .venv, or brings it up to date with pyproject.toml.
#
#   install_training NAME [EXTRA]     installs the package with its optional dependencies EXTRA, once for each NAME
#
# PYTHON chooses the interpreter.
export PIP_RETRIES="${PIP_RETRIES:-1}" # a package index that cannot be reached should fail soon
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
