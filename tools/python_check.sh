#!/usr/bin/env bash
# Builds the wheel of the Python package, installs it in a clean virtual environment, and runs its tests and its example.
#   tools/python_check.sh [PYTHON]     (default: python3)
# Exits with 77 where neither PyPI nor a mirror of it can be reached.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${1:-python3}
work=$root/build/python
mkdir -p "$work"

"$python" -c 'import ensurepip, os, sysconfig; raise SystemExit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
  2>/dev/null || "$root/tools/install_deps.sh" python3-dev python3-venv
rm -rf "$work/venv" "$work/dist"
"$python" -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip --disable-pip-version-check -q "$@"; }
pip install --dry-run scikit-build-core nanobind numpy ||
  { echo "python_check.sh: skipped, since pip reaches no package index"; exit 77; }

export CXX=${CXX:-c++}  # by the name that CMake gives it, so that ccache has the objects of the other builds
pip wheel --no-deps --wheel-dir "$work/dist" "$root"
pip install "$work"/dist/runahead-*.whl

cd "$work"  # where no folder is called runahead: the installed package is tested
venv/bin/python -m unittest discover -s "$root/tests/python"
venv/bin/python "$root/python/examples/ttft_by_ranks.py" --model "$root/models/demo" --contexts 500,2000 --repeats 1
venv/bin/python "$root/python/examples/ttft_by_ranks.py" --cluster 4x4090-pcie --contexts 4096 --ranks 1,2,4
