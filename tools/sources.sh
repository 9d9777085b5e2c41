#!/usr/bin/env bash
# Lists the project's C++ and CUDA sources, one a line; asks no git, so an unpacked archive will do.
set -euo pipefail
cd "$(dirname "$0")/.."
find . \( -path ./build -o -path './.*' \) -prune -o -type f \( -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) -printf '%P\n' | LC_ALL=C sort
