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
    "$python" -m pytest -q -p no:cacheprovider -m gpu tests/ops -k "$small"
}

bench() { # op, dtype, rounds, arguments...
  local name="benchmark_$1_$2_${*:4}"
  step "${name//[ =-]/_}" run_in_site "$python" -m benchmarks.run "$1" --device cuda --dtype "$2" --rounds "$3" \
    --out "$OUT" "${@:4}"
}

network=(--arch resnet50 --image-size 224 --precision bfloat16)
package_bench() { # label, name, arguments...
  step "bench_$1" run_in_site "$python" -m sal_fast bench "$2" --device cuda --out "$OUT/bench-$1-gpu.json" "${@:3}"
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
  step tests run_in_site "$python" -m pytest -q -p no:cacheprovider -m gpu tests/ops tests/probes tests/data tests/train tests/test_devices.py
fi
if part sanitizer; then
  for tool in memcheck racecheck synccheck; do
    step "sanitizer_$tool" sanitize "$tool"
  done
fi
if part benchmarks; then
  step kernels run_in_site "$python" -m benchmarks.kernels --out "$OUT"
  for dtype in bfloat16 float32; do
    bench cyborg_loss $dtype 50
    bench saliency_loss $dtype 50
    bench cam_head $dtype 50
    bench ssim $dtype 50
    bench minmax_normalize $dtype 50
    bench uncertainty $dtype 50
    bench topn_dice $dtype 50
    bench crop $dtype 50
  done
  bench uncertainty float32 50 --size columns=10
  bench uncertainty bfloat16 50 --size rows=2048 columns=128000
  bench probes float32 20
  # the experiment's own libraries are not on every such machine
  if "$python" -c "import polars, rich, safetensors, tyro" 2>/dev/null; then
    package_bench data data --images 4096 --rounds 3 --workers 14
    for compiled in False True; do
      package_bench "step_compile_$compiled" step "${network[@]}" --compile $compiled --batch-size 256 --images 2048 --rounds 20
      package_bench "score_compile_$compiled" score "${network[@]}" --compile $compiled --images 4096 --rounds 5
    done
    package_bench select select
  fi
fi

name=gpu_check$(printf -- "-%s" "$@")
"$python" - "$steps" "$OUT/${name%-}.json" <<'PYTHON'
import json, os, subprocess, sys

def gpu(field):
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "none"

lines = [line.rstrip("\n").split("\t") for line in open(sys.argv[1])]
steps = [{"step": name, "exit_status": int(rc), "seconds": int(seconds)} for name, rc, seconds in lines]
failed = [step["step"] for step in steps if step["exit_status"]]
document = {
    "schema": 1, "device": gpu("name"), "driver": gpu("driver_version"), "commit": os.environ["COMMIT"],
    "csrc_tree": os.environ["CSRC_TREE"], "steps": steps, "failed": failed,
}
json.dump(document, open(sys.argv[2], "w"), indent=1)
print("failed:", ", ".join(failed) or "nothing")
sys.exit(bool(failed))
PYTHON
status=$?
rm -f "$steps"
exit $status
