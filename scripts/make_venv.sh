#!/bin/sh
# Make the virtual environment of this checkout: sh scripts/make_venv.sh DIRECTORY
#
# Takes $PYTHON if it is set, else the first of the usual names that is new enough and can make virtual environments.
# A name that is found need not work: version managers put up shims for versions that are not switched on.
set -eu

venv=$1

if "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    exit 0
fi

if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
else
    set -- python3.14 python3.13 python3.12 python3.11 python3 python
fi

too_old=''
incomplete=''
for candidate in "$@"; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        too_old="${too_old:+$too_old, }$candidate is $version"
    elif ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        incomplete=${incomplete:-$candidate}
    else
        exec "$candidate" -m venv --clear "$venv"
    fi
done

if [ -n "$incomplete" ]; then
    echo "aioseed: $incomplete cannot make virtual environments: install its venv module (on Debian and Ubuntu: apt install python3-venv)." >&2
elif [ -n "$too_old" ]; then
    echo "aioseed needs Python 3.11 or newer ($too_old): install one, or name it with make PYTHON=/path/to/python." >&2
else
    echo "aioseed needs Python 3.11 or newer and found none: install one, or name it with make PYTHON=/path/to/python." >&2
fi
exit 1
