#!/usr/bin/env bash
# Lint, types, architecture, docs: everything about the code that needs no run of it.
set -euo pipefail
cd "$(dirname "$0")/.."
export AIRFLOW_HOME="$PWD/.cache/airflow" PATH="$PWD/.venv/bin:$PATH"

ruff check .
ruff format --check .
mypy
lint-imports
python -m scripts.check_docs
