#!/usr/bin/env bash
# Everything that needs a GPU, in ten minutes (benchmarks/README.md).
#
#   bash benchmarks/gpu_check.sh prepare       without a GPU: compile, record and download into build/gpu
#   bash benchmarks/gpu_check.sh [STEP ...]    with one: results go to $OUT, or build/gpu-results
set -eu
cd "$(dirname "$0")/.."
if [ "${1:-}" = prepare ]; then
  exec "${PYTHON:-python3}" benchmarks/gpu/prepare.py
fi
exec "${PYTHON:-python3}" benchmarks/gpu/check.py "$@"
