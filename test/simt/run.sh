#!/bin/bash
# Builds the CUDA part against the emulator three ways (build-simt/) and runs the tests in every mode that finds something the
# others do not: one line a mode, and the sum. See README.md for what each mode is for.
#
#   test/simt/run.sh [name]     only kernel cases whose name starts with `name`
#   JOBS=n                      processes side by side (2)
set -u
cd "$(dirname "$0")/../.."
export BUILD=${BUILD:-build-simt} FILTER=${1:-} ASAN_OPTIONS=detect_leaks=1
jobs=${JOBS:-2}
cmake -S test/simt -B "$BUILD" >"$BUILD.log" 2>&1 || { cat "$BUILD.log"; exit 1; }
targets=(oplus_cuda_simt)
for variant in plain checked asan; do targets+=(kernels_$variant selftest_$variant bugs_$variant); done
cmake --build "$BUILD" -j "$jobs" --target "${targets[@]}" >>"$BUILD.log" 2>&1 || { grep -E -A6 'error|Error' "$BUILD.log" | head -60; exit 1; }

# Every planted bug has to be noticed: a wrong result or a diagnosis in at least one of three runs; the correct one by none.
bugs() {
  local missed=() bug name count=0
  noticed() { timeout 60 "$@" "$bug" >/dev/null 2>&1 && return 1 || return 0; }
  for bug in $(seq 0 99); do
    name=$("$BUILD/bugs_plain" "$bug" name) || break
    if noticed "$BUILD/bugs_checked" || noticed env SIMT_THREADS=descending SIMT_BLOCKS=descending "$BUILD/bugs_plain" || noticed "$BUILD/bugs_asan"; then
      [ "$bug" = 0 ] && missed+=("a false alarm") || count=$((count + 1))
    else
      [ "$bug" = 0 ] || missed+=("$name")
    fi
  done
  echo "$count planted bugs noticed, ${#missed[@]} failed ${missed[*]}"
  [ ${#missed[@]} = 0 ]
}
mode() { # label, then a command
  local start=$SECONDS out status
  if [ "$2" = bugs ]; then out=$(bugs); else out=$(timeout 900 "${@:2}" 2>&1); fi
  status=$?
  if [ $status = 0 ]; then printf 'ok   %-52s %s (%d s)\n' "$1" "$(tail -1 <<<"$out")" $((SECONDS - start))
  else printf 'FAIL %-52s status %d\n%s\n' "$1" $status "$(tail -25 <<<"$out")"; fi
}
export -f bugs mode
random() { echo "env SIMT_THREADS=random SIMT_BLOCKS=random SIMT_RESIDENT=$1 SIMT_SEED=$2 SIMT_PREEMPT=${3:-0}"; }
B=$BUILD
{
  echo "mode 'kernels, checked' $B/kernels_checked '$FILTER'"
  echo "mode 'kernels, checked, random order, preempted' $(random 6 11 200) $B/kernels_checked '$FILTER'"
  echo "mode 'kernels, address and undefined sanitizers' $B/kernels_asan '$FILTER'"
  echo "mode 'kernels, ascending' $B/kernels_plain '$FILTER'"
  echo "mode 'kernels, descending' env SIMT_THREADS=descending SIMT_BLOCKS=descending $B/kernels_plain '$FILTER'"
  echo "mode 'kernels, random order, 4 blocks in flight' $(random 4 1) $B/kernels_plain '$FILTER'"
  echo "mode 'kernels, random order, 6 blocks in flight' $(random 6 2) $B/kernels_plain '$FILTER'"
  echo "mode 'kernels, random order, 8 blocks in flight' $(random 8 3) $B/kernels_plain '$FILTER'"
  for variant in plain checked asan; do echo "mode 'emulator, $variant' $B/selftest_$variant"; done
  echo "mode 'emulator, random order' $(random 4 5) $B/selftest_plain"
  echo "mode 'planted bugs' bugs"
} | xargs -P "$jobs" -d '\n' -I{} bash -c '{}' | tee "$BUILD/summary"
passed=$(grep -c '^ok ' "$BUILD/summary")
failed=$(grep -c '^FAIL ' "$BUILD/summary")
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" = 13 ]
