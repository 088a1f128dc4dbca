#!/bin/bash
# Breaks one line of a real kernel at a time and shows that the tests notice: a mutant that survives is a hole in the tests.
# Needs the builds of run.sh. Each mutant is one file compiled again (checked build), linked with the rest, and the cases of its
# family.
#
#   test/simt/mutants.sh [word]     only mutants whose line in the table contains `word`
#   JOBS=n                          processes side by side (2)
set -u
cd "$(dirname "$0")/../.."
export BUILD=${BUILD:-build-simt}
cmake --build "$BUILD" -j "${JOBS:-2}" --target kernels_checked >"$BUILD.log" 2>&1 || { echo "build first: test/simt/run.sh"; exit 1; }
rm -rf "$BUILD/mutants"
mkdir -p "$BUILD/mutants"

mutant() { # name | file that changes | operation's file that is compiled | cases | sed expression
  local name file stem cases change dir out
  IFS='|' read -r name file stem cases change <<<"$1"
  dir=$BUILD/mutants/${name//[^a-z0-9]/-}
  mkdir -p "$dir"
  cp -r native "$dir/"
  sed -i -E "$change" "$dir/native/$file"
  if cmp -s "native/$file" "$dir/native/$file"; then printf '%-44s %-24s NOT PLANTED\n' "$name" "$file"; return; fi
  g++ -std=c++20 -O1 -g -w -fPIC -fvisibility=hidden -ftrivial-auto-var-init=pattern -fsanitize=thread --param tsan-instrument-func-entry-exit=0 \
    -DSIMT_CHECK -DOPLUS_TARGET=cuda -I"$dir/native" -Itest/simt/include -x c++ -c "$dir/native/ops/$stem.cu" -o "$dir/mutant.o" 2>"$dir/log" ||
    { printf '%-44s %-24s DOES NOT COMPILE\n' "$name" "$file"; return; }
  # The changed file comes before the others, so that its copies of inline functions are the ones that are kept.
  g++ "$BUILD"/CMakeFiles/simt_engine_checked.dir/src/*.o "$dir/mutant.o" "$BUILD"/CMakeFiles/kernels_checked.dir/kernels.cu.o \
    $(find "$BUILD/CMakeFiles/simt_ops_checked.dir" -name '*.o' ! -name "$stem.cu.o") -o "$dir/kernels" 2>>"$dir/log"
  out=$(timeout 100 "$dir/kernels" "$cases" 2>&1)
  case $? in
    0) out="SURVIVED" ;;
    124) out="caught  did not end" ;;
    *) out="caught  $(grep -m1 '^FAIL' <<<"$out" | grep -oE 'race on [a-z]+|read of uninitialised [a-z]+|out of bounds[a-z ]*|past the end|neither shared[a-z ]*|deadlock|\[[0-9]+ of [0-9]+\] is|differs|becomes' | head -1)" ;;
  esac
  printf '%-44s %-24s %s\n' "$name" "$file" "$out"
  rm -rf "$dir"
}
export -f mutant

grep -F -- "${1:-}" <<'TABLE' | tr '\n' '\0' | xargs -0 -P "${JOBS:-2}" -I{} bash -c 'mutant "$1"' _ {} | tee "$BUILD/mutants.txt"
row does not wrap|ops/elementwise.cu|elementwise|elements|s/column >= width\) column/column > width) column/
slice reads from the wrong stride|ops/elementwise.cu|elementwise|copyBlock|s/x \+ row \* x_stride \+ i/x + row * y_stride + i/
one draw too many at the end|ops/dropout.cu|dropout|dropout|s/if \(i \+ j < n\)/if (i + j <= n)/
density of the gradient|ops/gelu.cu|gelu|gelu|s/0\.39894228/0.39994228/
ties away from even|ops/convert.cu|convert|convert|s/0xfff \+ \(magnitude >> 13 \& 1\)/0x1000/
half a warp is added|cuda/sizes.h|sum|sum|s/int step = 16; step; step/int step = 8; step; step/
columns without their barrier|cuda/columns.h|sum|sum|s/^  __syncthreads\(\);//
parts overlap|cuda/columns.h|sum|sum 1 5000|s/end = min\(n, first \+ part\)/end = n/
sum without the block's second barrier|cuda/sizes.h|layer_norm|layerNorm 2 1500|/warp < kThreads/,/return sum/ s/__syncthreads\(\);//
variance of a sample|ops/layer_norm.cu|layer_norm|layerNorm|s/squares, room\) \/ static_cast<float>\(C\)/squares, room) \/ static_cast<float>(C - 1)/
reduction steps by the block|cuda/reduce.h|loss|meanSquared|s/i \+= global_threads\(\)/i += blockDim.x/
second moment uncorrected|ops/optimizer.cu|optimizer|adamw|s/second\.x\[j\] \/ correction2/second.x[j]/
bias in every part|cuda/tiles.h|matmul|matmul 40 48 700|s/blockIdx\.y == 0 \? out\.bias : nullptr/out.bias/
panels without their barrier|cuda/tiles.h|matmul|matmul 65|/panel_b\[now \^ 1\]\);/,/^  \}/ s/__syncthreads\(\);//
panel reads past the depth|cuda/panel.h|matmul|matmul 65|s/k \+ j < depth/k + j <= depth/
narrow product reads a line too far|cuda/narrow.h|matmul|matmul 1 70|s/min\(first \+ r, lines - 1\)/min(first + r, lines)/
factor is lost|ops/fold_query.cu|fold_query|foldQuery|s/= factor \* sum;/= sum;/
scan without its barrier|cuda/prefixes.h|scan|scan 2 37|/if \(lane >= S::kLanes\) state = left/,/State<S> before/ s/__syncthreads\(\);//
scan with one half of shared memory|cuda/prefixes.h|scan|scan 8 300|s/, half \^= 1//
warp scan skips a unit|cuda/prefixes.h|scan|scan 2 37|s/lane >= step\) left/lane > step) left/
chunk starts from its own total|cuda/prefixes.h|scan|scan 1 700|s/\(gridDim\.y \+ 1\) \+ blockIdx\.y, job/(gridDim.y + 1) + blockIdx.y + 1, job/
padding keeps its output|ops/scan.cu|scan|scan 3 50|s/t >= length \|\| state\.p\.u == 0/state.p.u == 0/
masked value is looked at|ops/scan.cu|scan|scan 3 90|s/if \(score == kNoScore\) return state;//
sign of the final state's gradient|ops/scan_backward.cu|scan_backward|scan 2 37|s/\{-state\.p\.m, -state\.p\.u\}/{-state.p.m, state.p.u}/
rescaling is left out|ops/attend.cu|attend|attend 1 130|s/out\[i\]\[j\] \*= joined\.left;/out[i][j] *= 1;/
query does not see itself|cuda/attend.h|attend|attend 1 64|s/S - T \+ t \+ 1/S - T + t/
weights read before they are there|cuda/attend.h|attend|attend 1 65|s/__syncthreads\(\);  \/\/ weights have been put.*//
weights overwritten too soon|ops/attend_backward.cu|attend_backward|attend 3 70|s/__syncthreads\(\);  \/\/ the weights are.*//
one head of the group|ops/attend_backward.cu|attend_backward|attend 1 65|s/h < \(group \+ 1\) \* share/h < group * share + 1/
TABLE
caught=$(grep -c ' caught ' "$BUILD/mutants.txt")
others=$(grep -vc ' caught ' "$BUILD/mutants.txt")
echo "$caught caught, $others not"
[ "$others" = 0 ] && [ "$caught" -gt 0 ]
