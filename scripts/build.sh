#!/usr/bin/env bash
# Build the source distribution and the wheel, and check them: what is inside, what PyPI will show, and that building
# again gives the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$( [ -x .tools/bin/uv ] && echo .tools/bin/uv || command -v uv )

rm -rf dist .cache/again
"$uv" build --quiet --python .venv/bin/python
.venv/bin/python -m scripts.distribution dist

# The wheel above was built from the source distribution. Another umask, and times of another day.
(umask 077 && mkdir -p .cache/again && git ls-files -co --exclude-standard -z \
    | tar --create --null --files-from=- --ignore-failed-read 2>/dev/null \
    | tar --extract --touch --no-same-permissions --directory .cache/again)
(umask 077 && "$uv" build --quiet --python .venv/bin/python --out-dir .cache/again/dist .cache/again)
"$uv" build --quiet --wheel --python .venv/bin/python --out-dir .cache/again/direct
for file in dist/*; do
    cmp "$file" ".cache/again/dist/$(basename "$file")"
done
cmp dist/*.whl .cache/again/direct/*.whl
echo "Built again elsewhere: the same bytes"

UV_PROJECT_ENVIRONMENT=.venv-package scripts/setup.sh --only-group package
.venv-package/bin/twine check --strict dist/*
.venv-package/bin/check-wheel-contents dist/*.whl
