#!/usr/bin/env bash
# Fuzzes everything that reads files, and what a server reads and writes: tools/fuzz.sh [SECONDS for each target, 600 unless told].
# Stops at the first crash, sanitizer report, allocation above 64 MB, or input that takes half a minute; what caused it
# is left in build/fuzz/found/.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-600}
targets=(safetensors config gguf tokenizer_json sentencepiece http_request http_answer wire store)

cmake --preset fuzz >/dev/null
cmake --build --preset fuzz -j "$(nproc)"
mkdir -p build/fuzz/found
for target in "${targets[@]}"; do
  grown=build/fuzz/corpus/$target  # what earlier runs found interesting
  mkdir -p "$grown"
  dictionary=()
  case $target in sentencepiece | gguf | http_answer | wire | store) ;; *) dictionary=(-dict=tests/fuzz/json.dict) ;; esac
  echo "fuzzing $target for $seconds s"
  log=build/fuzz/$target.log
  if ! "build/fuzz/bin/${target}_fuzz" -max_total_time="$seconds" -max_len=900000 -len_control=200 -malloc_limit_mb=64 \
    -rss_limit_mb=2048 -timeout=30 -print_final_stats=1 -artifact_prefix="build/fuzz/found/$target-" "${dictionary[@]}" \
    "$grown" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
    tail -n 40 "$log"
    echo "$target: the input is in build/fuzz/found/, the whole log in $log"
    exit 1
  fi
  grep -E '^stat::(number_of_executed_units|slowest_unit_time_sec|peak_rss_mb)' "$log"
done
