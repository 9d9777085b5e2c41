#!/usr/bin/env bash
# Many sequences on one GPU: the tests of their operations, compute-sanitizer over them, and steps of batches of answers,
# also with --deterministic. Prints tables last.
#   tools/gpu/serving.sh [--no-build]
# Models are random weights, made under $MODELS (/dev/shm/runahead); results go to $RESULTS (build/gpu-serving). $PLANS are
# MODEL:BATCHES:CONTEXTS, run $REPEATS (3) times in $DTYPE (bf16); $TRACES (50) random traces are compared with each request
# alone.
set -euo pipefail
cd "$(dirname "$0")/../.."

models=${MODELS:-/dev/shm/runahead}
results=${RESULTS:-build/gpu-serving}
bin=${BIN:-build/cuda/bin}
plans=${PLANS:-llama-7b:1,8,32:1024 llama-7b:1:16384 llama-3-8b:64:1024,4096}
mkdir -p "$models" "$results"
if [ "${1:-}" != --no-build ]; then
  tools/install_cuda_deps.sh
  cmake --preset cuda >"$results/cmake.log"
  cmake --build --preset cuda -j "$(nproc)" --target runahead_cli serving_traces cuda_sequences_test cuda_steps_test \
    cuda_matmul_test cuda_attention_test >"$results/build.log"
fi

summary=()
check() {  # NAME COMMAND...
  if timeout 300 "${@:2}" >"$results/$1.log" 2>&1; then summary+=("$1 passed"); else
    summary+=("$1 FAILED: $results/$1.log")
    tail -n 5 "$results/$1.log"
  fi
}
for test in cuda_sequences_test cuda_steps_test cuda_matmul_test cuda_attention_test; do check $test "$bin/$test" --gtest_brief=1; done
if command -v compute-sanitizer >/dev/null; then
  check sanitized_sequences compute-sanitizer --error-exitcode 1 "$bin/cuda_sequences_test" --gtest_brief=1 \
    --gtest_filter='*KeepsRows:*RotatesAndAppends*:*Likeliest*:*Windows*'
  check sanitized_products compute-sanitizer --error-exitcode 1 "$bin/cuda_steps_test" --gtest_brief=1
fi
check traces "$bin/serving_traces" --devices cuda:0,0 --runs "${TRACES:-50}"
check deterministic_traces "$bin/serving_traces" --devices cuda:0,0 --runs "${TRACES:-50}" --deterministic yes

for plan in $plans; do
  IFS=: read -r model batches contexts <<<"$plan"
  [ -e "$models/$model/config.json" ] || "$bin/runahead" make-model "$model" "$models/$model" >"$results/make.log" 2>&1
  for way in "" --deterministic; do
    printf '\n%s %s\n' "$model" "$way"
    # shellcheck disable=SC2086
    "$bin/runahead" bench --suite decode --model "$models/$model" --devices cuda:0 --dtype "${DTYPE:-bf16}" --batch "$batches" \
      --contexts "$contexts" --repeats "${REPEATS:-3}" --kv-memory "${KV_MEMORY:-44GiB}" $way \
      --json "$results/$model-$contexts$way.json" | tee "$results/$model-$contexts$way.txt" || summary+=("$plan $way FAILED")
  done
done

printf '\n'
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
printf '%s\n' "${summary[@]}"
