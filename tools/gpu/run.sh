#!/usr/bin/env bash
# Builds with CUDA, runs the GPU tests and the benches on a machine with an NVIDIA GPU, and prints a short table last.
#   tools/gpu/run.sh [--no-build] [MODEL:CONTEXTS...]     (llama-7b:1024,4096,16384 llama-3-8b:16384 falcon-7b:8192)
# Models are random weights, made under $MODELS (/dev/shm/runahead); results go to $RESULTS (build/gpu). $DTYPES (bf16) are
# run one after the other, $REPEATS (10) times. With $PEERS=1 Hugging Face transformers runs too, where PyTorch is.
set -euo pipefail
cd "$(dirname "$0")/../.."

models=${MODELS:-/dev/shm/runahead}
results=${RESULTS:-build/gpu}
bin=${BIN:-build/cuda/bin}
mkdir -p "$models" "$results"
if [ "${1:-}" = --no-build ]; then
  shift
else
  tools/install_cuda_deps.sh
  cmake --preset cuda >"$results/cmake.log"
  cmake --build --preset cuda -j "$(nproc)" >"$results/build.log"
fi
plans=("$@")
[ ${#plans[@]} -gt 0 ] || plans=(llama-7b:1024,4096,16384 llama-3-8b:16384 falcon-7b:8192)
program=$bin/runahead

summary=()
for test in device_test memory_plan_test cuda_rows_test cuda_matmul_test cuda_mixture_test cuda_sequences_test cuda_steps_test cuda_attention_test gpu_test; do
  [ -x "$bin/$test" ] || continue
  if timeout 600 "$bin/$test" --gtest_brief=1 >"$results/$test.log" 2>&1; then summary+=("$test passed"); else
    summary+=("$test FAILED: $results/$test.log")
  fi
done

if command -v compute-sanitizer >/dev/null; then
  "$program" make-model tiny-llama "$models/tiny" >"$results/make.log" 2>&1 || true
  if timeout 300 compute-sanitizer --error-exitcode 1 "$program" bench --model "$models/tiny" --devices cuda:0 \
    --contexts 40,300 --repeats 1 --warmup 0 >"$results/sanitizer.log" 2>&1; then summary+=("compute-sanitizer clean"); else
    summary+=("compute-sanitizer FAILED: $results/sanitizer.log")
  fi
fi

if [ -x "$bin/decode_bench" ]; then
  timeout 300 "$bin/decode_bench" | tee "$results/decode_bench.txt" || summary+=("decode_bench FAILED: $results/decode_bench.txt")
fi

for plan in "${plans[@]}"; do
  model=${plan%%:*}
  [ -e "$models/$model/config.json" ] || "$program" make-model "$model" "$models/$model" >"$results/make.log" 2>&1
  for dtype in ${DTYPES:-bf16}; do
    "$program" bench --model "$models/$model" --devices cuda:0 --dtype "$dtype" --contexts "${plan#*:}" \
      --repeats "${REPEATS:-10}" --json "$results/$model-$dtype.json" | tee "$results/$model-$dtype.txt"
    if [ "${PEERS:-0}" = 1 ] && python3 -c 'import torch, transformers' 2>/dev/null; then
      timeout 600 python3 bench/peers/hf_transformers.py "$models/$model" --contexts "${plan#*:}" --dtype "$dtype" \
        --repeats "${REPEATS:-10}" --json "$results/$model-$dtype-transformers.json" \
        >"$results/$model-$dtype-transformers.txt" 2>&1 || summary+=("transformers FAILED: $results/$model-$dtype-transformers.txt")
    fi
  done
done

printf '\n'
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
printf '%s\n' "${summary[@]}"
python3 - "$results" "${plans[@]}" <<'PYTHON'
import glob, json, sys
for path in sorted(glob.glob(sys.argv[1] + "/*-*.json")):
    run = json.load(open(path))
    name = path.rsplit("/", 1)[1][:-5]
    if "peer" in run:
        for r in run["results"]:
            print(f"{name}: {r['context']:>6} tokens: TTFT {r['ttft_ms_median']:8.2f} ms")
        continue
    ceiling = run["matmul_ceilings"][0]
    print(f"{name}: ready after {run['load_s']:.1f} s, ceiling {ceiling['best'] / 1e12:.0f} TFLOP/s "
          f"({ceiling['sustained'] / 1e12:.0f} sustained), "
          f"copy {run['gpu']['copy_rate'] / 1e12:.2f} TB/s")
    for result in run["results"]:
        print(f"  {result['context']:>6} tokens: TTFT {result['ttft_ms_median']:8.2f} ms (first {result['ttft_ms_first']:.2f}), "
              f"{result['flop_rate'] / 1e12:.0f} TFLOP/s, {100 * result['share_of_ceiling']:.1f} % of the ceiling "
              f"({100 * result['flop_rate'] / ceiling['sustained']:.1f} % of the sustained)")
    for decoding in run["gpu"]["decoding"]:
        print(f"  {decoding['context']:>6} tokens: TPOT {decoding['ms_median']:8.3f} ms, "
              f"{100 * decoding['share_of_copy_rate']:.1f} % of the copy rate")
PYTHON
