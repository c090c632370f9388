#!/bin/sh
# All that is measured on a GPU, in one table of under six minutes:
#     benchmarks/gpu.sh [--data DATA] [--device cuda:1] [--tiny --device cpu]
# cuBLAS reads its workspace when it starts; of this size it adds in one order.
cd "$(dirname "$0")/.." || exit 1
export CUBLAS_WORKSPACE_CONFIG="${CUBLAS_WORKSPACE_CONFIG:-:4096:8}"
PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -m benchmarks.gpu "$@"
