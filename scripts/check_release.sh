#!/usr/bin/env bash
# Check that what is about to be released is ready: the tag is the version, the changelog has a date, the repository's
# address is known. For example: scripts/check_release.sh v0.1.0
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' airflow_provider_regal/__init__.py)
fail() { echo "$1" >&2; exit 1; }

[ "${1:-}" = "v$version" ] || fail "The tag is '${1:-}', the version in airflow_provider_regal/__init__.py is $version."
grep -Eq "^## ${version//./\\.} \([0-9]{4}-[0-9]{2}-[0-9]{2}\)$" CHANGELOG.md \
    || fail "CHANGELOG.md has no heading '## $version (YYYY-MM-DD)'."
grep -Eq '^Repository = "https://' pyproject.toml || fail "pyproject.toml: [project.urls] has no Repository."
echo "$version is ready to be released"
