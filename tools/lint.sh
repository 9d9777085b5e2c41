#!/usr/bin/env bash
# Checks format, names and common mistakes. clang-tidy runs on the files given, or on all of the project's.
set -euo pipefail
cd "$(dirname "$0")/.."

tools/check_includes.py

mapfile -t sources < <(git ls-files '*.h' '*.cc' '*.cu' '*.cuh')
clang-format --dry-run --Werror "${sources[@]}"

long=$(wc -l "${sources[@]}" | awk '$2 != "total" && $1 > 800 {print $2 ": " $1 " lines, 800 at most"}')
[ -z "$long" ] || { echo "$long" >&2; exit 1; }

cmake --preset release >/dev/null
files=("$@")
# What only the build with CUDA compiles has no compile commands here.
if [ ${#files[@]} -eq 0 ]; then
  mapfile -t files < <(git ls-files 'src/*.cc' 'apps/*.cc' | grep -vE '/cuda/|/cuda_(check|device)\.cc' ; ls src/ops/cuda/*_null.cc)
fi
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 2 clang-tidy -p build/release --quiet --warnings-as-errors='*' 2>/dev/null
