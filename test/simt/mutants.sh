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
ties away from even|ops/half.h|convert|convert|s/0xfff \+ \(magnitude >> 13 \& 1\)/0x1000/
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
new entry is not seen|cuda/cache_part.h|cache_attend|cacheAttend 1 2 2 8|s/e == held \|\| positions\[e\]/positions[e]/
reach is one too far|cuda/cache_part.h|cache_attend|cacheAttend 1 4 2 64 24|s/> position - step\.reach/>= position - step.reach/
key turned by its slot|cuda/cache_part.h|cache_attend|cacheAttend 1 2 2 64|s/e == held \? held : ranks\[e\]/e/
second half turned as the first|cuda/cache.h|cache_attend|cacheAttend 2 4 2 64 12|s/turn \+ R::column\(1, D\)/turn + R::column(0, D)/
partner in a row of single numbers|cuda/cache.h|cache_attend|cacheAttend 1 2 2 20|s/column < D \/ 2 \? column \+ D \/ 2/column < D \/ 2 - 1 ? column + D \/ 2/
new entry is seen unrounded|cuda/cache.h|cache_attend|cacheAttend 1 2 2 64|s/= widened\(stored<E>\(to\[i \* kPack \+ j\]\)\)/= to[i * kPack + j]/
queries without their barrier|ops/cache_attend.cu|cache_attend|cacheAttend 1 2 2 64|/weight\[i \/ kHeads\]/,/score_entries/ s/__syncthreads\(\);//
weights without their barrier|ops/cache_attend.cu|cache_attend|cacheAttend 1 2 2 64|/  weigh_entries/,/add_values/ s/__syncthreads\(\);//
room of sums without its halves|cuda/cache_part.h|cache_attend|cacheAttend 1 6 2 64|s/room\[h % 2\]/room[0]/g
heads that are not there|ops/cache_attend.cu|cache_attend|cacheAttend 1 6 2 64|s/i % kHeads >= part\.heads/i % kHeads > part.heads/
block goes on before its threads|cuda/cache_part.h|cache_attend|cacheAttend 1 2 1 64 150|/GPU_SHARED\(unsigned, last/,/gpu::arrive/ s/__syncthreads\(\);//
group without its last chunk|ops/cache_attend.cu|cache_attend|cacheAttend 1 2 1 64 150|s/chunks \* step\.parts\)/(chunks - (chunks > 1)) * step.parts)/
parts of a group are not waited for|ops/cache_attend.cu|cache_attend|cacheAttend 1 19|s/chunks \* step\.parts\)/chunks)/
groups are not waited for|ops/cache_attend.cu|cache_attend|cacheAttend 1 4 2 20|s/, end - group\)\) return/, 1)) return/
factor of the wrong chunk|cuda/cache_part.h|cache_attend|cacheAttend 1 2 1 64 150|s/factor\[e \/ chunk\]/factor[0]/
mean over the groups|ops/cache_attend.cu|cache_attend|cacheAttend 1 4 2 20|s/static_cast<float>\(step\.H\)/static_cast<float>(cache.G)/
score does not decay|cuda/cache_step.h|cache_attend|cacheAttend 1 4 2 64 12|s/rules\.keep \* score\[i\]/score[i]/
lowest without its barrier|cuda/cache_step.h|cache_attend|cacheAttend 1 4 2 20 11|/room\[threadIdx\.x \/ 32\] = mine/,/Candidate best/ s/__syncthreads\(\);//
tie goes to the newest|ops/cache_attend.h|cache_attend|cacheAttend 1 4 2 20 16|s/position < other_position/position > other_position/
sinks may go|ops/cache_attend.h|cache_attend|cacheAttend 1 4 2 64 12|s/position >= sinks/position >= sinks - 1/
recent entries may go|ops/cache_attend.h|cache_attend|cacheAttend 1 4 2 64 12|s/<= newest - recent/<= newest - recent + 1/
ranks without their barrier|cuda/cache_step.h|cache_attend|cacheAttend 1 2 2 64|/old = ranks\[slot\]/,/for \(int64_t s/ s/__syncthreads\(\);//
ranks do not move up|cuda/cache_step.h|cache_attend|cacheAttend 1 2 2 64|s/rank > old\)/rank > old + 1)/
one group gets the new entry|cuda/cache_step.h|cache_attend|cacheAttend 1 4 2 20|s/P == 1 \? G : p \+ 1/p + 1/
dropped entry is put|ops/cache_attend.cu|cache_attend|cacheAttend 3 4 2 64 14|s/slot < 0 \|\| slot >= cache\.S/slot < 0/
mean of squares without epsilon|ops/rms_norm.cu|rms_norm|rmsNorm|s/ \+ epsilon\)/)/
gradient along the row stays|ops/rms_norm.cu|rms_norm|rmsNorm|s/ - in\.x\[j\] \* scale \* along//
factor of another row|ops/rms_norm.cu|rms_norm|rmsNorm|s/factor\[n\]\)/factor[first])/
gain without its barrier|ops/rms_norm.cu|rms_norm|rmsNorm|/room\[warp\]\[lane\] = gain/,/if \(warp == 0/ s/__syncthreads\(\);//
gate that overflows|ops/swiglu.cu|swiglu|swiglu|s/gate\.x\[j\] \/ \(1 \+ expf\(-gate\.x\[j\]\)\)/gate.x[j] * expf(gate.x[j]) \/ (1 + expf(gate.x[j]))/
gate's own slope is left out|ops/swiglu.cu|swiglu|swiglu|s/\(1 \+ gate\.x\[j\] \* shut\)/1/
gate of the other sign|ops/swiglu.cu|swiglu|swiglu|s/gate\.x\[j\] < 0 \? small : large/small/
angle in single precision|ops/rope.cu|rope|rope|s/const double turns = positions\[j \/ half\]/const float turns = positions[j \/ half]/
tokens listed without a barrier|ops/embed_backward.cu|embed_backward|embedBackward|/if \(mine\) token/,/const float\* from/ s/__syncthreads\(\);//
counts without their barrier|ops/embed_backward.cu|embed_backward|embedBackward|/if \(lane == 0\) counts/,/int place/ s/__syncthreads\(\);//
tokens of other warps are not counted|ops/embed_backward.cu|embed_backward|embedBackward|s/if \(w < warp\) place \+= counts\[w\];//
rows of another range|ops/embed_backward.cu|embed_backward|embedBackward|s/id >= first \&\& id < last/id >= first/
tables are not added|ops/embed_backward.cu|embed_backward|embedBackward|s/if \(parts > 1\) launch_columns\(.*//
turned on, not back|ops/rope.cu|rope|rope|s/neighbours, -1\)/neighbours, 1)/
table of another head|ops/rope.cu|rope|rope|s/head \/ H \* half/head * half/
received before the first query|ops/cache_received.cu|cache_received|cacheReceived|s/t < begin \|\| t >= heads\.T/t >= heads.T/
received from a tile too late|ops/cache_received.cu|cache_received|cacheReceived 1 130|s/first - \(heads\.S - heads\.T\)\)/first + 64)/
nibbles of a block in turn|cuda/stored.h|linear_stored|stored 4|s/4 \* \(i % 2\) \+ 16 \* \(i \/ 2\)/8 * (i % 2) + 16 * (i \/ 2)/
high bits of a scale|cuda/stored.h|linear_stored|stored 5|s/\(byte\(part \+ 4\) \& 15\) \| byte\(part - 4\) >> 6 << 4/byte(part + 4) \& 15/
high bits of another quarter|cuda/stored.h|linear_stored|stored 6|s/8 \* j \+ 2 \* quarter/8 * j + quarter/
weights without a sign|cuda/stored.h|linear_stored|stored 3|s/static_cast<int8_t>\(word/static_cast<uint8_t>(word/
row read past its end|cuda/stored.h|linear_stored|stored 1|s/if \(i >= left\) break;/if (i > left) break;/
warps that share lines are not added|ops/linear_stored.cu|linear_stored|stored 1|s/other < share; \+\+other/other < 1; ++other/
line behind the last|ops/linear_stored.cu|linear_stored|stored 2|s/min\(first \+ r, w\.lines - 1\)/first + r/
powers of an older largest|ops/cross_entropy.cu|cross_entropy|crossEntropy 2|s/sum = sum \* expf\(top - most\)/sum = sum/
sums of threads as they are|ops/cross_entropy.cu|cross_entropy|crossEntropy|s/sum \* expf\(top - most\), room/sum, room/
nothing but classes that cannot be|ops/cross_entropy.cu|cross_entropy|crossEntropy|s/top = -FLT_MAX/top = -INFINITY/
class behind the last|ops/cross_entropy.cu|cross_entropy|crossEntropy|s/target < classes/target <= classes/
rows that take no part|ops/cross_entropy.cu|cross_entropy|crossEntropy|s/target != kIgnored/target != kIgnored - 1/
class is not taken off|ops/cross_entropy.cu|cross_entropy|crossEntropy|s/i \+ j == target \?/i + j == target + 1 ?/
largest without its barrier|ops/cross_entropy.cu|cross_entropy|crossEntropy|/x, room\[warp\]/,/return x/ s/__syncthreads\(\);//
row read past its last class|ops/cross_entropy.cu|cross_entropy|crossEntropy|s/if \(i < classes\)/if (i <= classes)/
last fault|ops/first_fault.cu|first_fault|firstFault|s/atomicMin/atomicMax/
least scale of a block|ops/first_fault.cu|first_fault|firstFault 5|s/ \|\| fault\(block \+ scales\.second\)//
numbers behind the last sixteen bytes|ops/first_fault.cu|first_fault|firstFault|s/first = packs \* 16 \/ scales\.bytes/first = count/
lower half of a float|ops/first_fault.cu|first_fault|firstFault 0|s/j = kHalves - 1;/j = 0;/
found is never set|ops/first_fault.cu|first_fault|firstFault|s/gpu::launch\(no_fault, .*//
id that is not there|ops/linear_stored.cu|linear_stored|stored 0|s/id >= 0 \&\& id < w\.lines/id >= 0 \&\& id <= w.lines/
c of the key alone|cuda/favor.h|linear_attention|linearAttention 1 70|s/= later_c\(before, run\[i\]\)/= run[i]/
climb without its barrier|cuda/favor.h|linear_attention|linearAttention 1 70|/own, 1\);$/,/float before/ s/__syncthreads\(\);//
token that is not there has another's top|cuda/favor.h|linear_attention|linearAttention 1 30|s/top_k \&\& t < n\.T \? top_k\[key\(b, t, g\)\]/top_k ? top_k[key(b, min(t, n.T - 1), g)]/
waves without a sine|cuda/favor.h|linear_attention|linearAttention 1 20|s/wave_of\(2 \* m >= n\.M/wave_of(m < 0/
later key is seen|ops/linear_attention.cu|linear_attention|linearAttention 1 70|s/column <= row \&\& first/first/
later value is looked at|cuda/favor_tile.h|linear_attention|linearAttention future|s/kSide != Side::triangle \|\| from/from >= 0 || from/
features over panels that are read|ops/linear_attention.cu|linear_attention|linearAttention 1 70|s/__syncthreads\(\);  \/\/ the panels are still read//
chunk without its barrier|ops/linear_attention.cu|linear_attention|linearAttention 3 100|s/__syncthreads\(\);  \/\/ those of the chunk before.*//
slab without its barrier|cuda/favor_tile.h|linear_attention|linearAttention 1 70|s/__syncthreads\(\);  \/\/ weights have been put; the slab.*//
normaliser does not fade|ops/linear_attention.cu|linear_attention|linearAttention 1 330|s/keep \* z\[row\] \+ added/z[row] + added/
segment relative to the last|cuda/favor_states.h|linear_attention|linearAttention 1 330|s/return f\.frame\(b, g, segment\); \}/return f.frame(b, g, f.segments - 1); }/
state of one head of the group|ops/linear_attention.cu|linear_attention|linearAttention 3 150|s/i < n\.group\(\); \+\+i\) slots/i < 1; ++i) slots/
mark of a part of a segment|ops/linear_attention.cu|linear_attention|linearAttention 1 140|s/mark\(s \* f\.span \/ n\.every, before\)/mark(s % n.marks(), before)/
scale of a key grows|ops/linear_attention_backward.cu|linear_attention_backward|linearAttention 1 3|s/Feature::exponential \? -1/Feature::exponential ? 1/
what comes later in every head|cuda/favor_backward.h|linear_attention_backward|linearAttention 3 150|s/\(b, h \+ i, s\) \* size \+ at\] = 0;/(b, h + i, s) * size + at] = state;/
gradient from what came before|cuda/favor_backward.h|linear_attention_backward|linearAttention 1 70|s/column <= row \&\& first/first/
later sum does not fade|ops/linear_attention_backward.cu|linear_attention_backward|linearAttention 2 100|s/within \&\& t < end \? fade\(before, f\.c\(b, g, t\)\)/within \&\& t < end ? 1/
square without its barrier|ops/linear_attention_backward.cu|linear_attention_backward|linearAttention 1 70|s/__syncthreads\(\);  \/\/ the square is still read//
TABLE
caught=$(grep -c ' caught ' "$BUILD/mutants.txt")
others=$(grep -vc ' caught ' "$BUILD/mutants.txt")
echo "$caught caught, $others not"
[ "$others" = 0 ] && [ "$caught" -gt 0 ]
