#!/usr/bin/env bash
# Run the tests on the oldest supported Airflow and the lowest versions of our own requirements (Airflow decides about
# its own). Coverage is measured here, where it does not keep anybody waiting who only wants to run the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_PROJECT_ENVIRONMENT=.venv-lowest UV_PYTHON_DOWNLOADS=never
uv=$( [ -x .tools/bin/uv ] && echo .tools/bin/uv || command -v uv )

UV_PROJECT_ENVIRONMENT=.venv-lowest scripts/setup.sh --no-group airflow3 --group airflow2
mapfile -t lowest < <(.venv-lowest/bin/python -m scripts.lowest)
echo "On the lowest versions: ${lowest[*]}"
"$uv" pip install --quiet --python .venv-lowest/bin/python "${lowest[@]}"
.venv-lowest/bin/python -m pytest -n 4 -q --cov --cov-report=term:skip-covered -m "not services and not slow and not long and not distributed" tests
