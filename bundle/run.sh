#!/usr/bin/env bash
# Installs, tests and measures on this machine; ./run.sh --help tells more.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "$0")/run.py" "$@"
