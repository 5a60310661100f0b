#!/bin/sh
# Runs the contract tests of the Node runtime. The tests are written in Python, in a virtual environment of their own; the
# server's packages are those of package-lock.json.
#   ./test.sh [pytest arguments]        NODE=/opt/node24/bin/node ./test.sh   chooses the interpreter
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
node=${NODE:-node}
PATH=$(dirname "$(command -v "$node")"):$PATH
export PATH

requirements=../python/tests/requirements.txt
key=$( { cat "$requirements"; "$python" -VV; } | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubeless/nodejs-runtime
venv=$cache/$key
if [ ! -e "$venv/complete" ]; then
    echo "test.sh: making the virtual environment $venv (once per set of requirements, about 10 s)"
    rm -rf "$venv"
    mkdir -p "$cache"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$requirements"
    touch "$venv/complete"
fi

lock=$( { cat package-lock.json; node --version; } | sha256sum | cut -c1-16)
if [ "$(cat node_modules/.complete 2>/dev/null)" != "$lock" ]; then
    echo "test.sh: installing the server's packages (npm ci, about 5 s)"
    npm ci --silent --no-audit --no-fund --no-update-notifier
    echo "$lock" >node_modules/.complete
fi

echo "test.sh: running the contract tests against the real server on node $(node --version) (about 60 s)"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=../contract exec "$venv/bin/python" -m pytest -q -p no:cacheprovider -p harness \
    --runtime nodejs --timeout 120 ../contract tests "$@"
