#!/usr/bin/env bash
# Everything that needs a GPU, in one go: build, tests, compute-sanitizer, benchmarks. A step that fails is recorded and
# the next one runs. Results, logs and gpu_check.json go to $OUT.
#
#   OUT=results CSRC_TREE=$(git rev-parse HEAD:csrc) bash benchmarks/gpu_check.sh
#
# Needs: an NVIDIA GPU, nvcc, a C++ compiler, and a Python with torch, scikit-build-core, pybind11, cmake, ninja, pytest,
# scipy, numpy and Pillow. Nothing is downloaded. Whole runs need the other dependencies of sal-fast (tyro, polars and rich
# among them) and are skipped, visibly, without.
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export OUT=${OUT:-benchmarks/results}
export CSRC_TREE=${CSRC_TREE:-$(git rev-parse HEAD:csrc 2>/dev/null || echo unknown)}
export COMMIT=${COMMIT:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
steps=$OUT/gpu_check.steps
: >"$steps"

step() { # name, command...
  local name=$1 start=$SECONDS rc
  shift
  echo "== $name: $*"
  "$@" >"$OUT/$name.log" 2>&1
  rc=$?
  tail -n 5 "$OUT/$name.log"
  printf '%s\t%s\t%s\n' "$name" "$rc" "$((SECONDS - start))" >>"$steps"
}

# Tests and benchmarks import what was built into $site, so this machine's environment stays as it is. The sources
# beside them must not be found first: hence a copy of the tests and the benchmarks alone.
run_in_site() {
  (cd "$site/work" && PYTHONPATH="$site/lib:$site/work" SAL_FAST_NATIVE=1 "$@")
}

sanitize() { # tool
  run_in_site compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all \
    "$python" -m pytest -q -p no:cacheprovider -m gpu tests/ops/test_uncertainty.py \
    -k "(test_forward or test_backward or test_bad_rows) and float32 and not 20000"
}

step build env SAL_FAST_CUDA=ON SAL_FAST_REQUIRE_NATIVE=1 \
  CUDAARCHS="${CUDAARCHS:-native}" "$python" -m pip install --no-build-isolation --no-deps --target "$site/lib" .
mkdir -p "$site/work"
cp -r tests benchmarks csrc pyproject.toml "$site/work/"
step gpu "$python" -c "import torch; assert torch.cuda.is_available(), 'torch sees no CUDA device'"
step build_info run_in_site "$python" -c "import sal_fast; print(sal_fast.build_info())"
step tests run_in_site "$python" -m pytest -q -p no:cacheprovider -m gpu tests/ops tests/test_devices.py
for tool in memcheck racecheck synccheck; do
  step "sanitizer_$tool" sanitize "$tool"
done
for shape in "65536 1000 float32" "65536 1000 bfloat16" "65536 10 float32" "2048 128000 bfloat16"; do
  read -r rows columns dtype <<<"$shape"
  step "benchmark_${rows}x${columns}_$dtype" run_in_site "$python" -m benchmarks.run uncertainty --device cuda \
    --rows "$rows" --columns "$columns" --dtype "$dtype" --rounds 50 --out "$OUT"
done

"$python" - "$steps" "$OUT/gpu_check.json" <<'PYTHON'
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
