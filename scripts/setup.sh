#!/bin/sh
# Make the project's environment in .venv with whatever this machine has: uv, venv or pip. Nothing outside the folder.
set -eu
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3.11}
command -v "$PYTHON" >/dev/null 2>&1 || PYTHON=python3
export UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT="${UV_PROJECT_ENVIRONMENT:-.venv}"

fetch_uv() { # a uv of our own in .tools
    if "$PYTHON" -m venv .tools >/dev/null 2>&1 && [ -x .tools/bin/pip ]; then
        .tools/bin/pip install --quiet --disable-pip-version-check "uv>=0.8"
    elif "$PYTHON" -m pip --version >/dev/null 2>&1; then
        rm -rf .tools
        "$PYTHON" -m pip install --quiet --disable-pip-version-check --target .tools "uv>=0.8"
    else
        rm -rf .tools
        echo "To make the environment, one of uv, venv or pip is needed (Debian: apt-get install python3-venv)." >&2
        exit 1
    fi
}

if [ -x .tools/bin/uv ]; then
    UV=.tools/bin/uv
elif command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then
    UV=uv
else
    fetch_uv
    UV=.tools/bin/uv
fi

"$UV" sync --quiet --frozen --python "$PYTHON" "$@"
