#!/usr/bin/env bash
# Sets up avt in the checkout's own virtual environment, .venv, and says how to call it.
#
#   bash launch/setup.sh                          for CPUs
#   AVT_EXTRAS=cuda bash launch/setup.sh          for GPUs; AVT_EXTRAS=tpu for TPUs
#   AVT_PYTHON=python3.13 bash launch/setup.sh    another interpreter, for a new .venv
#
# Needs Python 3.11 to 3.13, from any folder. The same command again brings .venv up to date, or goes
# on after an interruption; quickstart.sh and test.sh do this first, too.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case "${1:-}" in
    "") ;;
    -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    *) fail "unknown option '$1'; setup.sh takes none." ;;
esac

setup_env
version="$("$VENV/bin/avt" --version)"
activate=activate
case "${SHELL:-}" in
    */fish) activate=activate.fish ;;
    */csh | */tcsh) activate=activate.csh ;;
esac
folder="$VENV/bin"
[ "$PWD" != "$ROOT" ] || folder=.venv/bin
say "$version is ready. In each shell that is to know the command:"
echo "    $(quoted source "$folder/$activate")"
echo "    avt --help"
