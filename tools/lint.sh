#!/usr/bin/env bash
# Checks the order of the rooms, format, names and common mistakes: tools/lint.sh [FILE...]
# clang-tidy runs on the files given, or on all that the build without CUDA compiles.
set -euo pipefail
cd "$(dirname "$0")/.."
tidy=build/lint

tools/check_includes.py
tools/format.sh --check
long=$(tools/sources.sh | xargs wc -l | awk '$2 != "total" && $1 > 800 {print $2 ": " $1 " lines, 800 at most"}')
[ -z "$long" ] || { echo "$long" >&2; exit 1; }

# Without precompiled headers, so that a file that leans on another's includes is found.
cmake --preset release -B $tidy -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON -DCMAKE_UNITY_BUILD=OFF >/dev/null
tools/tidy.py $tidy "$@"
