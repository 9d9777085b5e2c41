#!/usr/bin/env bash
# Compiles the CPU's operations and the tests of their bits for 64-bit Arm, and runs those in an emulator: the same products,
# attention and sums, by NEON.   tools/neon_check.sh
# Needs Debian's g++-aarch64-linux-gnu and qemu-user, which it installs as root where they are missing, and from the archive the
# libraries of that processor, which stay in build/neon. Exits with 77 where these cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/build/neon
compiler=aarch64-linux-gnu-g++
emulator=qemu-aarch64

skip() { echo "neon_check.sh: skipped, since $*"; exit 77; }
command -v apt-get >/dev/null || skip "this is no Debian"
if ! command -v $compiler >/dev/null || ! command -v $emulator >/dev/null; then
  tools/install_deps.sh g++-aarch64-linux-gnu qemu-user || skip "there is no $compiler or no $emulator"
fi

# The libraries, from the archive of this system, with lists of their own.
if [ ! -e "$work/ready" ]; then
  mkdir -p "$work/apt/lists/partial" "$work/apt/cache" "$work/root"
  apt=(apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "Dir::State::Lists=$work/apt/lists"
    -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=root)
  fetch() { (cd "$work/apt" && "${apt[@]}" download "$@") >>"$work/apt.log" 2>&1 || skip "the archive has no $* for arm64"; }
  "${apt[@]}" update >"$work/apt.log" 2>&1 || skip "the archive cannot be reached"
  fetch libhwy-dev libfmt-dev libgtest-dev
  for library in libhwy libfmt; do
    fetch "$(dpkg-deb -f "$work/apt/$library-dev"_*.deb Depends | tr -d ' ' | tr ',' '\n' | grep -o "^$library[0-9][^(]*")"
  done
  for package in "$work"/apt/*.deb; do dpkg -x "$package" "$work/root"; done
  touch "$work/ready"
fi

flags=(-std=c++20 -O2 -ffp-contract=off -fopenmp -Isrc -Iinclude -Itests -Itests/ops -isystem "$work/root/usr/include"
  '-DHWY_DISABLED_TARGETS=(HWY_SVE|HWY_SVE2|HWY_SVE_256|HWY_SVE2_128)')
mkdir -p "$work/objects"
# The rooms below are joined into one source, as in all builds.
printf '#include "%s"\n' "$PWD"/src/base/*.cc "$PWD"/src/kv/*.cc \
  "$PWD"/src/tensor/{cpu_device,cpu_features,cuda_device_null,dtype,memory_plan}.cc >"$work/below.cc"
mapfile -t sources < <(ls "$work/below.cc" src/ops/*.cc src/ops/cpu/*.cc src/ops/cpu/matmul/*.cc src/ops/cuda/cuda_ops_null.cc)
tests=(matmul_bits_test integer_matmul_test attention_test)
object_of() { echo "$work/objects/$(tr / . <<<"${1%.cc}").o"; }
compile() { ${CMAKE_CXX_COMPILER_LAUNCHER:-} $compiler "${flags[@]}" -c "$1" -o "$2"; }
objects=()
running=0
for source in "${sources[@]}" "${tests[@]/#/tests/ops/}"; do
  case $source in tests/*) source+=.cc ;; *) objects+=("$(object_of "$source")") ;; esac
  compile "$source" "$(object_of "$source")" &
  running=$((running + 1))
  [ $running -lt "${JOBS:-$(nproc)}" ] || { wait -n; running=$((running - 1)); }
done
while [ $running -gt 0 ]; do wait -n; running=$((running - 1)); done

folder=$work/root/usr/lib/aarch64-linux-gnu
for test in "${tests[@]}"; do
  $compiler -fopenmp "$(object_of "tests/ops/$test.cc")" "${objects[@]}" -L"$folder" -Wl,-rpath,"$folder" \
    -lgtest -lgtest_main -lhwy -lfmt -o "$work/$test"
  $emulator -L /usr/aarch64-linux-gnu "$work/$test" --gtest_brief=1 --gtest_filter="*Bits*:*Integer*:*Quantise*:*HeadSizesAndDTypes*"
done
