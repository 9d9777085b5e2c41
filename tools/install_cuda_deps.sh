#!/usr/bin/env bash
# Fetches the headers that the cuda preset needs and this machine lacks, as Python wheels into build/cuda-deps: cuDNN's C++
# frontend, and cuDNN itself where the CUDA toolkit has none. Needs no root.
set -euo pipefail
cd "$(dirname "$0")/.."

target=build/cuda-deps
site=$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
toolkit=$(dirname "$(dirname "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")
has() {  # FILE FOLDER...
  local folder
  for folder in "${@:2}"; do [ -e "$folder/$1" ] && return; done
  return 1
}
wheels=()
has cudnn_frontend.h $target/include "$site/include" ${CUDNN_ROOT:+"$CUDNN_ROOT/include"} || wheels+=(nvidia-cudnn-frontend==1.23.0)
has cudnn.h $target/nvidia/cudnn/include "$toolkit/include" /usr/include "$site/nvidia/cudnn/include" \
  ${CUDNN_ROOT:+"$CUDNN_ROOT/include"} || wheels+=(nvidia-cudnn-cu13)
[ ${#wheels[@]} -eq 0 ] || python3 -m pip install --quiet --no-deps --target $target "${wheels[@]}"
