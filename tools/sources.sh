#!/usr/bin/env bash
# Lists the project's C++ and CUDA sources, one a line; asks no git, so an unpacked archive will do.
set -euo pipefail
cd "$(dirname "$0")/.."
find apps bench docs include python src tests -type f \( -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) 2>/dev/null | LC_ALL=C sort
