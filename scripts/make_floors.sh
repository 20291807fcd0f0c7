#!/bin/sh
# Make a virtual environment with the oldest versions that pyproject.toml allows: sh scripts/make_floors.sh DIRECTORY
#
# What aioseed names itself is as old as it may be, under the oldest Python if there is one; what those need in turn, and
# what only the tests need, is new.
set -eu

venv=$1
if [ -z "${PYTHON:-}" ] && command -v python3.11 >/dev/null; then
    PYTHON=python3.11
fi
PYTHON=${PYTHON:-} sh scripts/make_venv.sh "$venv"

install="$venv/bin/python -m pip --quiet --quiet --disable-pip-version-check install"
echo "Installing the oldest versions that are allowed into $venv"
$install --upgrade pip uv
"$venv/bin/uv" pip compile --quiet --python "$venv/bin/python" --resolution lowest-direct --output-file "$venv/floors.txt" \
    --extra learner --extra atari --extra envpool --extra minigrid --extra mujoco --extra vizdoom --extra plots \
    pyproject.toml
$install --requirement "$venv/floors.txt"
$install --constraint "$venv/floors.txt" --editable '.[learner]' --group dev
