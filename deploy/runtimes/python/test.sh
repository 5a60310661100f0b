#!/bin/sh
# Runs the contract tests of the Python runtime in a virtual environment of its own.
#   ./test.sh [pytest arguments]        PYTHON=python3.9 ./test.sh   chooses the interpreter
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}

key=$( { cat requirements.txt tests/requirements.txt; "$python" -VV; } | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubeless/python-runtime
venv=$cache/$key

if [ -e "$venv/complete" ]; then
    echo "test.sh: using the virtual environment $venv"
else
    echo "test.sh: making the virtual environment $venv (once per set of requirements, about 15 s)"
    rm -rf "$venv"
    mkdir -p "$cache"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r requirements.txt -r tests/requirements.txt
    touch "$venv/complete"
fi

echo "test.sh: running the contract tests against the real server (about 45 s)"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=../contract exec "$venv/bin/python" -m pytest -q -p no:cacheprovider -p harness \
    --runtime python --timeout 120 ../contract tests "$@"
