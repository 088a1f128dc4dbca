#!/usr/bin/env bash
# Everything that wants a GPU, on a machine with one, nvcc, CMake and Python with PyTorch, without Node:
#
#   bash bench/gpu.sh [build] [test] [sanitize] [bench]      all four when none is named
#
# builds liboplus_cuda.so and the kernels' tests into build-gpu/, runs the tests on the hardware, then under every tool of
# compute-sanitizer, then times the library beside PyTorch (bench/results/<date>-<device>.json). Ends with `N passed, N failed`.
#   ARCH=90       compute capability to build for   (default: of this machine's GPU)
#   PYTHON=…      with PyTorch                      (default: python3)
#   JOBS=n        compilers side by side            (default: the processors)
set -u
cd "$(dirname "$0")/.."
steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(build test sanitize bench)
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
python=${PYTHON:-python3}
jobs=${JOBS:-$(nproc)}
out=build-gpu
mkdir -p "$out"
passed=0 failed=0

step() { # NAME COMMAND…: its output is shown, and kept in build-gpu/NAME.log
  local name=$1 start=$SECONDS
  shift
  "$@" 2>&1 | tee "$out/$name.log"
  if [ "${PIPESTATUS[0]}" -eq 0 ]; then
    passed=$((passed + 1)) && echo "ok     $name ($((SECONDS - start)) s)"
  else
    failed=$((failed + 1)) && echo "FAILED $name ($((SECONDS - start)) s)"
  fi
}

build() {
  local arch=${ARCH:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)}
  [ -n "$arch" ] || { echo "no GPU found: name one with ARCH=90"; return 1; }
  local flags=(-std=c++20 -O3 -lineinfo -DOPLUS_TARGET=cuda -Inative -gencode "arch=compute_$arch,code=sm_$arch" -Xcompiler -fPIC,-fvisibility=hidden)
  # The list of operations is written by the same function as in the package's build.
  cat >"$out/table.cmake" <<'CMAKE'
include(cmake/ops_table.cmake)
file(GLOB files native/ops/*.cu)
oplus_ops_table(cuda "${OUT}/ops_cuda.cpp" ${files})
CMAKE
  cmake -DOUT="$PWD/$out" -P "$out/table.cmake" || return 1
  local objects=() file
  for file in native/ops/*.cu native/cuda/*.cu "$out/ops_cuda.cpp" test/simt/kernels.cu; do
    objects+=("$out/$(basename "${file%.*}").o")
    printf '%s\0%s\0' "$file" "${objects[-1]}"
  done >"$out/files"
  xargs -0 -P "$jobs" -n 2 bash -c '"${@:1:$#-2}" -c "${@: -2:1}" -o "${@: -1}"' _ "$nvcc" "${flags[@]}" <"$out/files" || return 1
  "$nvcc" -shared -cudart static -o "$out/liboplus_cuda.so" "${objects[@]:0:${#objects[@]}-1}" || return 1
  "$nvcc" -cudart static -o "$out/kernels" "${objects[@]}"
}

sanitize() { # one tool: a diagnosis is an error, and so is a failed test
  compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 20 "$out/kernels"
}

bench() {
  local device
  device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr -cs 'A-Za-z0-9\n' -)
  "$python" bench/gpu_bench.py --library "$out/liboplus_cuda.so" --out "bench/results/$(date +%F)-${device:-gpu}.json"
}

for each in "${steps[@]}"; do
  case $each in
    build) step build build ;;
    test) step kernels "$out/kernels" ;;
    sanitize)
      if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck initcheck synccheck; do step "$tool" sanitize "$tool"; done
      else
        echo 'compute-sanitizer is not here: left out'
      fi
      ;;
    bench) step bench bench ;;
    *) echo "unknown step: $each"; exit 2 ;;
  esac
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
