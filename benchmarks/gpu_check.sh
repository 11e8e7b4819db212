#!/usr/bin/env bash
# Everything that needs a GPU: build, tests, compute-sanitizer, benchmarks. A step that fails is recorded and the next one
# runs. Results, logs and gpu_check.json go to $OUT.
#
#   OUT=results CSRC_TREE=$(git rev-parse HEAD:csrc) bash benchmarks/gpu_check.sh [build] [tests] [sanitizer] [benchmarks]
#
# Without a name all four; by name where time is lent in pieces: what is built stays in build/gpu_check.
# Needs: an NVIDIA GPU, nvcc, a C++ compiler, and a Python with torch, torchvision, scikit-build-core, pybind11, cmake,
# ninja, pytest, scipy, numpy and Pillow. Nothing is downloaded. Whole runs need the other dependencies of sal-fast (tyro,
# polars and rich among them) and are skipped, visibly, without; so are peers that are not installed.
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export OUT=${OUT:-benchmarks/results}
export CSRC_TREE=${CSRC_TREE:-$(git rev-parse HEAD:csrc 2>/dev/null || echo unknown)}
export COMMIT=${COMMIT:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
site=$PWD/build/gpu_check
steps=$OUT/gpu_check.steps
: >"$steps"
parts=" ${*:-build tests sanitizer benchmarks} "

step() { # name, command...
  local name=$1 start=$SECONDS rc
  shift
  echo "== $name: $*"
  "$@" >"$OUT/$name.log" 2>&1
  rc=$?
  tail -n 5 "$OUT/$name.log"
  printf '%s\t%s\t%s\n' "$name" "$rc" "$((SECONDS - start))" >>"$steps"
}

part() {
  [[ $parts == *" $1 "* ]]
}

# Tests and benchmarks import what was built into $site, so this machine's environment stays as it is. The sources
# beside them must not be found first: hence a copy of the tests and the benchmarks alone.
run_in_site() {
  (cd "$site/work" && PYTHONPATH="$site/lib:$site/work" SAL_FAST_NATIVE=1 "$@")
}

# Every kernel, forward and backward, at sizes that are no multiple of anything.
small="((test_forward or test_backward) and float32 and not 20000) or test_values_and_gradients or test_sizes"
small="$small or test_strides_of_cams_and_masks or test_strides_of_maps or test_values"
small="$small or test_rows_out_of_range or test_sizes_and_dtypes or test_one_gradient or test_target_type_range or test_has_map"
sanitize() { # tool
  run_in_site compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all \
    "$python" -m pytest -o addopts=--import-mode=importlib -q -p no:cacheprovider -m gpu tests/ops -k "$small"
}

# Measures by `sal_fast.bench.run`, which needs no library of the command line. The options are Python: "batch=2, rounds=5".
bench() { # label, name, options
  step "bench_$1" run_in_site "$python" -c "import logging
logging.basicConfig()
logging.getLogger('sal_fast').setLevel('DEBUG')
from sal_fast import bench
from sal_fast.bench import table
document = bench.run('$2', device='cuda', out='$OUT/$1-gpu.json', ${*:3})
print(*(sheet.markdown() for sheet in table.sheets(document)), sep='\n\n')"
}

if part build; then
  rm -rf "$site"
  step build env SAL_FAST_CUDA=ON SAL_FAST_REQUIRE_NATIVE=1 \
    CUDAARCHS="${CUDAARCHS:-native}" "$python" -m pip install --no-build-isolation --no-deps --target "$site/lib" .
fi
rm -rf "$site/work"
mkdir -p "$site/work"
cp -r tests benchmarks csrc docs README.md pyproject.toml "$site/work/"
step gpu "$python" -c "import torch; assert torch.cuda.is_available(), 'torch sees no CUDA device'"
step build_info run_in_site "$python" -c "import sal_fast; print(sal_fast.build_info())"
if part tests; then
  step tests run_in_site "$python" -m pytest -o addopts=--import-mode=importlib -q -p no:cacheprovider -m gpu tests/ops tests/probes tests/data tests/train tests/bench/test_clock.py tests/test_devices.py
fi
if part sanitizer; then
  for tool in memcheck racecheck synccheck; do
    step "sanitizer_$tool" sanitize "$tool"
  done
fi
if part benchmarks; then
  step kernels run_in_site "$python" benchmarks/kernels.py "$OUT"
  for dtype in bfloat16 float32; do
    for op in cyborg_loss saliency_loss cam_head ssim minmax_normalize uncertainty topn_dice crop; do
      bench $op-$dtype $op "rounds=50, dtype='$dtype'"
    done
  done
  bench uncertainty-10-columns uncertainty "rounds=50, columns=10"
  bench uncertainty-128000-columns uncertainty "rounds=50, dtype='bfloat16', rows=2048, columns=128000"
  bench probes probes "rounds=20"
  # The experiment's own libraries are not on every such machine.
  if "$python" -c "import matplotlib, polars, rich, safetensors, tyro" 2>/dev/null; then
    bench data data "images=4096, rounds=3, workers=14"
    for compiled in False True; do
      network="arch='resnet50', image_size=224, precision='bfloat16', compile=$compiled"
      bench step-compile-$compiled step "$network, batch_size=256, images=2048, rounds=20"
      bench score-compile-$compiled score "$network, images=4096, rounds=5"
    done
    bench select select "rounds=3"
  fi
fi

gpu() { # field
  nvidia-smi "--query-gpu=$1" --format=csv,noheader 2>/dev/null | head -n 1
}
name=gpu_check$(printf -- "-%s" "$@")
DEVICE=$(gpu name) DRIVER=$(gpu driver_version) "$python" - "$steps" "$OUT/${name%-}.json" <<'PYTHON'
import json, os, sys

lines = [line.rstrip("\n").split("\t") for line in open(sys.argv[1])]
steps = [{"step": name, "exit_status": int(rc), "seconds": int(seconds)} for name, rc, seconds in lines]
failed = [step["step"] for step in steps if step["exit_status"]]
machine = {field: os.environ[field.upper()] or "none" for field in ("device", "driver", "commit", "csrc_tree")}
json.dump({"schema": 1, **machine, "steps": steps, "failed": failed}, open(sys.argv[2], "w"), indent=1)
print("failed:", ", ".join(failed) or "nothing")
sys.exit(bool(failed))
PYTHON
status=$?
rm -f "$steps"
exit $status
