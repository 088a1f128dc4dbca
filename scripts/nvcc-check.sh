#!/bin/bash
# Compiles every CUDA source with nvcc for every architecture of the list that it knows, with warnings, spilled registers and
# local memory as errors. Needs no GPU. Without nvcc it says so and succeeds.
#
#   scripts/nvcc-check.sh [stem …]      all of native/cuda/*.cu and native/ops/*.cu, or only those named
#   JOBS=n                              processes side by side (2)
set -u
cd "$(dirname "$0")/.."
nvcc=$(command -v nvcc || { [ -x /usr/local/cuda/bin/nvcc ] && echo /usr/local/cuda/bin/nvcc; })
[ -n "$nvcc" ] || { echo "no nvcc here: CUDA sources are not checked"; exit 0; }

known=$("$nvcc" --list-gpu-arch)
targets=()
for arch in 75 80 86 89 90 100 120; do
  grep -qx "compute_$arch" <<<"$known" && targets+=(-gencode "arch=compute_$arch,code=sm_$arch")
done
files=()
for stem in "${@:-*}"; do files+=(native/cuda/$stem.cu native/ops/$stem.cu); done

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
check() {
  local name
  name=$(basename "$1" .cu)
  if "${@:2}" -c "$1" -o "$out/$name.o" >"$out/$name.log" 2>&1; then echo "ok   $1"; else echo "FAIL $1"; cat "$out/$name.log"; fi
}
export -f check
export out
flags=(-std=c++20 -DOPLUS_TARGET=cuda -Inative -O3 "${targets[@]}" -Werror all-warnings
  -Xptxas --warn-on-spills,--warn-on-local-memory-usage -Xcompiler -Wall,-Wextra,-fPIC,-fvisibility=hidden)
for file in "${files[@]}"; do [ -e "$file" ] && printf '%s\0' "$file"; done |
  xargs -0 -P "${JOBS:-2}" -I{} bash -c 'check "$@"' _ {} "$nvcc" "${flags[@]}" | tee "$out/summary"
passed=$(grep -c '^ok ' "$out/summary")
failed=$(grep -c '^FAIL ' "$out/summary")
echo "nvcc $("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p'), $((${#targets[@]} / 2)) architectures: $passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
