#!/usr/bin/env bash
# Code compiled for AVX2 or AVX-512 must not be the one copy of an inline function that the linker keeps for every machine,
# and must not run when the addon loads. so its objects may define no weak function outside oplus::<target>, and nothing that
# is constructed at load time.
set -u
cd "$(dirname "$0")/.."
bad=0
for target in avx2 avx512; do
  objects=$(find build -path "*ops_$target.dir*" -name '*.o')
  [ -n "$objects" ] || { echo "no objects of $target: build first"; exit 1; }
  for object in $objects; do
    # what is named after an operation of the target is its own: templates instantiated with oplus::<target>::…
    shared=$(nm -C "$object" | grep -E '^[0-9a-f]+ W ' | grep -v "oplus::$target::")
    if [ -n "$shared" ]; then printf '%s shares\n%s\n' "$object" "$shared"; bad=1; fi
    if readelf -SW "$object" | grep -qE '\.init_array|\.ctors'; then echo "$object runs code at load time"; bad=1; fi
  done
done
[ $bad -eq 0 ] && echo "operations of avx2 and avx512 share no code and run none at load time"
exit $bad
