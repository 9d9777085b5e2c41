#!/usr/bin/env bash
# Times prefill strategies on a model of one billion parameters with random weights (2.5 GB in FOLDER, build/bench).
#   tools/bench.sh PROGRAM [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."

program=$1
folder=${2:-build/bench}
[ -e "$folder/llama-1b/config.json" ] || "$program" make-model llama-1b "$folder/llama-1b"
ranks=$(nproc)
"$program" bench --model "$folder/llama-1b" --devices "cpu:$((ranks < 8 ? ranks : 8))" --contexts 512,2048 --repeats 3 \
  --json "$folder/bench.json" --svg "$folder/bench.svg"
