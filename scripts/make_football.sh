#!/bin/sh
# Make the virtual environment in which football actors live: sh scripts/make_football.sh DIRECTORY
#
# gfootball is compiled when it is installed, in about three minutes on two cores. It is built against the system's
# Boost.Python, which knows the system's Python alone, so that is the one taken; $PYTHON names another.
set -eu

venv=$1
python=${PYTHON:-/usr/bin/python3}
packages='build-essential cmake python3-dev python3-venv libsdl2-dev libsdl2-image-dev libsdl2-ttf-dev libsdl2-gfx-dev
    libgl1-mesa-dev libegl-dev libboost-python-dev libboost-thread-dev libboost-filesystem-dev libboost-system-dev'

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "aioseed needs Python 3.11 or newer, and $python is none: name one with make football PYTHON=/path/to/python." >&2
    exit 1
fi

if command -v dpkg-query >/dev/null; then
    missing=''
    for package in $packages; do
        status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) || status=''
        [ "$status" = 'install ok installed' ] || missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        echo "gfootball cannot be compiled without these packages: apt install$missing" >&2
        exit 1
    fi
fi

install="$venv/bin/python -m pip --quiet --disable-pip-version-check install -c scripts/football-constraints.txt"

"$python" -m venv --clear "$venv"
echo "Installing aioseed for football actors into $venv: gfootball is compiled, which takes some minutes"
# gfootball's setup.py uses what newer setuptools have dropped, and asks psutil how many compilers may run: both have to
# be there before it is built, and its build has to see them.
$install setuptools wheel psutil
PATH="$(cd "$venv/bin" && pwd):$PATH" $install --no-build-isolation gfootball gym
$install --editable '.[football]'
# The distribution's pip may be too old to know groups.
$install --upgrade pip
$install --group football
