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
python -m scripts.check_english
UV_PROJECT_ENVIRONMENT=.venv-package scripts/setup.sh --only-group package
github() { .venv-package/bin/check-jsonschema --builtin-schema "vendor.$1" "${@:2}"; }
github github-workflows .github/workflows/*.yml
github dependabot .github/dependabot.yml
github github-issue-config .github/ISSUE_TEMPLATE/config.yml
github github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/idea.yml
