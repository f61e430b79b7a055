#!/bin/sh
# Makes .venv hold exactly what requirements.lock names, plus this project (editable).
# Safe to run again at any time: a finished set-up is recognised by its stamp, an interrupted one is repaired.
set -eu
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=.venv
UV_VERSION=0.13.8
STAMP=$VENV/.perception-ready
UNFINISHED=$VENV/.perception-unfinished

say() { printf '%s\n' "setup: $*"; }
die() { printf '%s\n' "setup: $*" >&2; exit 1; }

command -v "$PYTHON" >/dev/null 2>&1 || die "'$PYTHON' was not found; install Python 3.10, 3.11 or 3.12, or name one: make PYTHON=/path/to/python3.11 setup"
"$PYTHON" - <<'PY' || exit 1
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    sys.exit("setup: perception needs Python 3.10, 3.11 or 3.12, but '%s' is Python %d.%d; name another one: make PYTHON=/path/to/python3.11 setup"
             % ((sys.executable,) + tuple(sys.version_info[:2])))
PY

fingerprint() { # what the environment was made from
    "$VENV/bin/python" - <<'PY'
import hashlib, pathlib, sys
digest = hashlib.sha256(f"{sys.version_info[:2]} {pathlib.Path.cwd()}".encode())
for name in ("requirements.lock", "pyproject.toml", "tools/setup.sh", *sorted(map(str, pathlib.Path("startup").glob("*.p*")))):
    digest.update(pathlib.Path(name).read_bytes())
print(digest.hexdigest())
PY
}

if [ -f "$STAMP" ] && wanted=$(fingerprint 2>/dev/null) && [ "$(cat "$STAMP")" = "$wanted" ]; then
    exit 0
fi
rm -f "$STAMP"

if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    say "creating $VENV with $("$PYTHON" --version)"
    rm -rf "$VENV"
    "$PYTHON" -m venv "$VENV" || die "'$PYTHON -m venv' failed; on Debian and Ubuntu: apt install python3-venv"
fi

reinstall=
[ ! -f "$UNFINISHED" ] || { say "the last set-up did not finish; installing every package afresh"; reinstall=--reinstall; }
: > "$UNFINISHED"
"$VENV/bin/python" -m uv --version 2>/dev/null | grep -q "^uv $UV_VERSION" ||
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall "uv==$UV_VERSION" ||
    die "uv could not be installed (is a package index reachable?); the same by hand: $VENV/bin/pip install -r requirements.lock && $VENV/bin/pip install --no-deps -e ."
say "installing $(grep -c '==' requirements.lock) locked packages (about 8 GB on disk, a minute on a fast line)"
# shellcheck disable=SC2086
"$VENV/bin/python" -m uv pip install --quiet --python "$VENV/bin/python" $reinstall -r requirements.lock
"$VENV/bin/python" -m uv pip install --quiet --python "$VENV/bin/python" --no-deps --editable .
rm -f "$UNFINISHED"
fingerprint > "$STAMP.tmp" && mv "$STAMP.tmp" "$STAMP"
say "ready: source $VENV/bin/activate"
