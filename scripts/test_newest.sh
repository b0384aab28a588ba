#!/usr/bin/env bash
# Run the tests with the newest versions of all dependencies that fit together, whatever uv.lock says.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$( [ -x .tools/bin/uv ] && echo .tools/bin/uv || command -v uv )

UV_PROJECT_ENVIRONMENT=.venv-newest scripts/setup.sh
"$uv" pip install --quiet --upgrade --python .venv-newest/bin/python --group dev --group airflow3 --editable .
.venv-newest/bin/python -m pytest -n 4 -m "not services and not slow and not long and not distributed" tests
