#!/usr/bin/env bash
# Builds with CUDA, runs the tests of ranks on several GPUs and the paper's suite, and prints a short table last.
#   tools/gpu/ranks.sh [--no-build] [--tests-only] [MODEL...]     (llama-7b falcon-7b llama-3-8b)
# Models are random weights, made under $MODELS (/dev/shm/runahead); results go to $RESULTS (build/gpu-ranks). $DEVICES
# (all GPUs) are used, in $DTYPE (f16), at $CONTEXTS, over the links of $LINKS (full,link:10GB/s), $REPEATS (5) times.
# With $PEERS=1 the scripts of bench/peers run too, where torchrun is. $STEP_SECONDS bounds each step (540).
set -euo pipefail
cd "$(dirname "$0")/../.."
export CUDA_DEVICE_MAX_CONNECTIONS=32 NCCL_NVLS_ENABLE=0

models=${MODELS:-/dev/shm/runahead}
results=${RESULTS:-build/gpu-ranks}
bin=${BIN:-build/cuda/bin}
limit=${STEP_SECONDS:-540}
build=1
suite=1
while [ "${1:-}" = --no-build ] || [ "${1:-}" = --tests-only ]; do
  if [ "$1" = --no-build ]; then build=0; else suite=0; fi
  shift
done
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(llama-7b falcon-7b llama-3-8b)
mkdir -p "$models" "$results"
if [ "$build" = 1 ]; then
  tools/install_cuda_deps.sh
  cmake --preset cuda >"$results/cmake.log"
  cmake --build --preset cuda -j "$(nproc)" --target runahead_cli gpu_link_test gpu_ranks_test >"$results/build.log"
fi
gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader | wc -l)
devices=${DEVICES:-cuda:0-$((gpus - 1))}
nvidia-smi topo -m >"$results/topology.txt" 2>&1 || true

summary=()
for test in gpu_link_test gpu_ranks_test; do
  if timeout "$limit" "$bin/$test" --gtest_brief=1 >"$results/$test.log" 2>&1; then summary+=("$test passed"); else
    summary+=("$test FAILED: $results/$test.log")
    tail -n 15 "$results/$test.log"
  fi
done

if [ "$suite" = 1 ]; then
  for name in "${names[@]}"; do
    [ -e "$models/$name/config.json" ] || "$bin/runahead" make-model "$name" "$models/$name" >"$results/make.log" 2>&1
    contexts=()
    [ -z "${CONTEXTS:-}" ] || contexts=(--contexts "$CONTEXTS")
    if timeout "$limit" "$bin/runahead" bench --suite paper --model "$models/$name" --devices "$devices" \
      --dtype "${DTYPE:-f16}" "${contexts[@]}" --suite-links "${LINKS:-full,link:10GB/s}" --repeats "${REPEATS:-5}" \
      --tuned "$results/tuned" --json "$results/$name.json" --plots "$results/plots" >"$results/$name.txt" 2>&1; then
      summary+=("$name: $results/$name.json")
    else
      summary+=("$name FAILED or out of time: $results/$name.txt")
      tail -n 5 "$results/$name.txt"
    fi
    if [ "${PEERS:-0}" = 1 ] && command -v torchrun >/dev/null; then
      for mode in tp zigzag; do
        timeout "$limit" torchrun --nproc-per-node "$gpus" bench/peers/torch_parallel.py "$models/$name" --mode "$mode" \
          --contexts "${CONTEXTS:-4096,16384}" --dtype "${DTYPE:-f16}" --json "$results/$name-torch-$mode.json" \
          >"$results/$name-torch-$mode.txt" 2>&1 || summary+=("$name torch $mode: $results/$name-torch-$mode.txt")
      done
      timeout "$limit" torchrun --nproc-per-node "$gpus" bench/peers/hf_tensor_parallel.py "$models/$name" \
        --contexts "${CONTEXTS:-4096,16384}" --dtype "${DTYPE:-f16}" --json "$results/$name-hf-tp.json" \
        >"$results/$name-hf-tp.txt" 2>&1 || summary+=("$name transformers TP: $results/$name-hf-tp.txt")
    fi
  done
fi

printf '\n'
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
printf '%s\n' "${summary[@]}"
python3 - "$results" <<'PYTHON'
import glob, json, sys
for path in sorted(glob.glob(sys.argv[1] + "/*.json")):
    run = json.load(open(path))
    if "peer" in run:
        for r in run["results"]:
            print(f"{run['peer']:>16} x{r['ranks']} {r['context']:>6}: {r['ttft_ms_median']:8.2f} ms")
        continue
    for model in run.get("models", []):
        print(f"{model['model']} in {model['dtype']}, ceilings "
              + ", ".join(f"{c['ranks']}: {c['best'] / 1e12:.0f} ({c['sustained'] / 1e12:.0f})" for c in model["ceilings"]))
        rows = {}
        for r in model["results"]:
            rows.setdefault((r["links"], r["ranks"] if r["way"] != "auto" else 0, r["context"]), {})[r["way"]] = r
        for (links, ranks, context), ways in rows.items():
            print(f"{links:>12} x{ranks or 'auto'} {context:>6}: "
                  + ", ".join(f"{w} {r['ttft_ms_median']:.1f} ({100 * r['share_of_limit']:.0f} %)" for w, r in ways.items()))
        for r in model["side_traffic"]:
            print(f"{r['links']:>12} side traffic, {r['way']}: {100 * r['lost_share']:+.1f} %")
PYTHON
