#!/bin/sh
# Horsies needs Python 3.13: one in PATH, or one of pyenv's, whose shims refuse to run what is not chosen.
set -eu
cd "$(dirname "$0")"
for python in python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python3.13; do
    if "$python" -c "" 2>/dev/null; then
        rm -rf .venv
        "$python" -m venv .venv
        exec .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
    fi
done
echo "not installed: Python 3.13"
exit 1
