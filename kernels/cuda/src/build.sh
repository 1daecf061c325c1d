#!/usr/bin/env bash
# Compiles every kernel file to ../ptx/*.ptx for compute_80, lowers .version to the least that ptxas accepts, checks
# registers, spills and shared memory on sm_80, sm_86 and sm_90, and writes ../ptx/MANIFEST. It needs nvcc and ptxas of
# CUDA 12.4 on PATH; CUDA_INC may name the folder of the CUDA headers. The same sources give the same bytes, in any
# folder.
set -euo pipefail
cd "$(dirname "$0")"
export LC_ALL=C

if ! command -v nvcc >/dev/null || ! command -v ptxas >/dev/null; then
  echo "compiling the kernels needs nvcc and ptxas of CUDA 12.4 on PATH; ../ptx stays as it is" >&2
  exit 1
fi

flags=(-std=c++17 -O3 -arch=compute_80 --fmad=true --ftz=false --prec-div=true --prec-sqrt=true)
shared_limit=101376 # 99 KB, the most that a block can use on sm_86, sm_89 and sm_120
targets=(sm_80 sm_86 sm_90)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=../ptx
mkdir -p "$out"

# lower FILE sets .version in the file to the least that ptxas accepts, and prints it.
lower() {
  local file=$1 version
  for version in 7.0 7.1 7.2 7.3 7.4 7.5 7.6 7.7 7.8 8.0 8.1 8.2 8.3 8.4; do
    sed "s/^\.version .*/.version $version/" "$file" >"$work/try.ptx"
    # ptxas accepts sm_90 only from version 7.8 on, but a driver compiles an older version for sm_90 too, so the version
    # is tried with sm_80
    if ptxas -arch=sm_80 -o /dev/null "$work/try.ptx" 2>/dev/null; then
      cp "$work/try.ptx" "$file"
      echo "$version"
      return
    fi
  done
  echo "ptxas accepts no version of $file" >&2
  return 1
}

# figures FILE TARGET prints one line per kernel: registers, static shared memory and stack bytes. It fails if a kernel
# spills registers or has more static shared memory than shared_limit.
figures() {
  # ptxas accepts sm_90 only from version 7.8 on, so an older version is raised in a copy
  sed -E "s/^\.version 7\.[0-7]$/.version 7.8/" "$1" >"$work/assemble.ptx"
  ptxas -v -arch="$2" -o "$work/kernels.cubin" "$work/assemble.ptx" 2>"$work/log"
  awk -v target="$2" -v limit="$shared_limit" '
    /Compiling entry function/ { split($0, part, "\x27"); name = part[2] }
    /bytes stack frame/ {
      stack = spills = 0
      for (i = 1; i < NF; i++) {
        if ($(i + 1) == "bytes" && $(i + 2) == "stack") stack = $i
        if ($(i + 1) == "bytes" && $(i + 2) == "spill") spills += $i
      }
    }
    /Used [0-9]+ registers/ {
      registers = shared = 0
      for (i = 1; i < NF; i++) {
        if ($(i + 1) ~ /^registers/) registers = $i
        if ($(i + 1) == "bytes" && $(i + 2) ~ /^smem/) shared = $i
      }
      if (spills > 0) { print name ": " spills " bytes of spills on " target > "/dev/stderr"; bad = 1 }
      if (shared > limit) { print name ": " shared " bytes of shared memory" > "/dev/stderr"; bad = 1 }
      print "kernel", name, target, "registers", registers, "shared", shared, "stack", stack
      seen++
    }
    END { if (!seen) { print "no kernel in the log of ptxas" > "/dev/stderr"; bad = 1 }; exit bad }
  ' "$work/log" | sort
}

manifest=$work/MANIFEST
{
  echo "# Written by src/build.sh; what lies here was compiled from these sources."
  echo "compiler $(nvcc --version | sed -n 's/.*\(V[0-9.]*\)$/nvcc \1/p') $(ptxas --version | sed -n 's/.*\(V[0-9.]*\)$/ptxas \1/p')"
  echo "flags ${flags[*]}"
  for source in *.cu *.cuh; do
    echo "source $source $(sha256sum <"$source" | cut -d' ' -f1)"
  done
} >"$manifest"

mkdir "$work/ptx"
for source in *.cu; do
  name=${source%.cu}
  nvcc "${flags[@]}" ${CUDA_INC:+-I"$CUDA_INC"} -ptx -o "$work/raw.ptx" "$source"
  # remove everything that depends on the machine: comments contain build identifiers and paths, and the names of an
  # anonymous namespace contain a hash of the source's path; blank lines are removed too
  sed -E '/^\/\//d; /^$/d; s/[ \t]+$//; s/_GLOBAL__N__[0-9a-f]{8}_/_GLOBAL__N__00000000_/g' \
    "$work/raw.ptx" >"$work/ptx/$name.ptx"
  if grep -n -E '/(home|root|tmp|usr|work)/' "$work/ptx/$name.ptx"; then
    echo "$name.ptx holds a path" >&2
    exit 1
  fi
  version=$(lower "$work/ptx/$name.ptx")
  echo "ptx $name.ptx $version $(sha256sum <"$work/ptx/$name.ptx" | cut -d' ' -f1)" >>"$manifest"
  for target in "${targets[@]}"; do
    figures "$work/ptx/$name.ptx" "$target" >>"$manifest"
  done
done

rm -f "$out"/*.ptx
cp "$work"/ptx/*.ptx "$out"/
cp "$manifest" "$out/MANIFEST"
