#!/usr/bin/env bash
# Builds the wheel, installs it into a new empty environment and imports every module of it from outside the repository;
# goes from built-in data to predictions with its command line alone;
# then lets a process that does not import perception use the operators that it provides for mmcv.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
make setup
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
uv=("$repository/.venv/bin/python" -m uv)
"${uv[@]}" build --quiet --wheel --out-dir "$place/dist" .
"$repository/.venv/bin/python" -m venv --without-pip "$place/venv"
"${uv[@]}" pip install --quiet --python "$place/venv/bin/python" -r requirements.lock
"${uv[@]}" pip install --quiet --python "$place/venv/bin/python" --no-deps "$place"/dist/*.whl
git ls-files perception projects > "$place/files"
git ls-files configs | sed 's|^|perception/|' >> "$place/files"
cd /
env -u PYTHONPATH "$place/venv/bin/python" "$repository/.ci/check_wheel.py" "$place/files"
env -u PYTHONPATH "$place/venv/bin/python" "$repository/.ci/check_operators.py"
mkdir "$place/empty"
cd "$place/empty"
env -u PYTHONPATH PATH="$place/venv/bin:$PATH" bash "$repository/.ci/check_commands.sh"
