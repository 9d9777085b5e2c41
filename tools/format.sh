#!/usr/bin/env bash
# Formats all C++ sources in place; with --check, names those that are not formatted and changes nothing.
# Versions of clang-format disagree, so everybody uses this one: Debian 12's, or elsewhere a Python wheel in build/.
set -euo pipefail
cd "$(dirname "$0")/.."
version=14.0.6
wheel=build/clang-format-$version

find_it() {
  local candidate
  for candidate in clang-format clang-format-14 "$wheel/clang_format/data/bin/clang-format"; do
    [[ "$("$candidate" --version 2>/dev/null)" == *"version ${version%%.*}."* ]] && echo "$candidate" && return
  done
}
formatter=$(find_it || true)
if [ -z "$formatter" ]; then
  python3 -m pip --version >/dev/null 2>&1 || tools/install_deps.sh python3-pip
  python3 -m pip install --quiet --target "$wheel" "clang-format==$version"
  formatter=$(find_it)
fi
mode=(-i)
[ "${1:-}" != --check ] || mode=(--dry-run --Werror)
tools/sources.sh | xargs "$formatter" "${mode[@]}"
