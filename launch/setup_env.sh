# shellcheck shell=bash
# Sourced by the other scripts: finds the checkout, makes or reuses its own virtual environment.
#
#   AVT_PYTHON   interpreter for the environment (default: the newest of python3.12, 3.13, 3.11,
#                python3 that runs)
#   AVT_EXTRAS   extras to install besides "test", e.g. "cuda" (default: none)

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"

say() { printf '\n== %s\n' "$*"; }

find_python() {
    local name
    for name in ${AVT_PYTHON:-python3.12 python3.13 python3.11 python3}; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    echo "avt: error: no Python 3.11, 3.12 or 3.13 with venv found; install one, or name it: AVT_PYTHON=/path/to/python3.12" >&2
    return 2
}

# Installs the package into $VENV unless that was done for this very setup.py.
setup_env() {
    local extras="test${AVT_EXTRAS:+,$AVT_EXTRAS}" python stamp
    # An interrupted start may have left the interpreter without pip.
    if [ ! -x "$VENV/bin/python" ] || [ ! -e "$VENV/bin/pip" ]; then
        python="$(find_python)" || return
        say "Making a virtual environment in .venv with $("$python" --version)"
        "$python" -m venv "$VENV"
    fi
    stamp="$extras $("$VENV/bin/python" -c 'import hashlib, sys; print(sys.version, hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$ROOT/setup.py")"
    if [ "$(cat "$VENV/.avt_installed" 2>/dev/null)" != "$stamp" ]; then
        say "Installing avt_jax and its dependencies (about 1.2 GB, a few minutes the first time)"
        # Python compiles a module when it is first imported; to compile all takes half of the time.
        "$VENV/bin/python" -m pip install --no-compile --disable-pip-version-check --progress-bar off -q -e "${ROOT}[$extras]" || {
            echo "avt: error: pip could not install the packages; the lines above say why. The same command goes on." >&2
            return 2
        }
        printf '%s' "$stamp" >"$VENV/.avt_installed"
    else
        say "Using the virtual environment in .venv"
    fi
}
