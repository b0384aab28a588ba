#!/usr/bin/env bash
# Build the wheel and check that it holds the package, all of it and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$( [ -x .tools/bin/uv ] && echo .tools/bin/uv || command -v uv )

rm -rf dist
"$uv" build --quiet --python .venv/bin/python
.venv/bin/python - <<'PYTHON'
import sys, zipfile
from pathlib import Path

(wheel,) = Path("dist").glob("*.whl")
inside = set(zipfile.ZipFile(wheel).namelist())
shipped = {name for name in inside if ".dist-info/" not in name}
ours = {str(path) for path in Path("airflow_provider_regal").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
if shipped != ours:
    sys.exit(f"{wheel}: missing {sorted(ours - shipped)}, not ours {sorted(shipped - ours)}")
print(f"{wheel}: {len(shipped)} files, all of the package and nothing else")
PYTHON
