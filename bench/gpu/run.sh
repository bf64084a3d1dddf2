#!/usr/bin/env bash
# Runs phases of the GPU bench (build, truth, memory, speed, faults), each at most 9 minutes; --cpu rehearses them.
# $PYTHON [python3] must have PyTorch. What else is missing there comes from the wheels of .gpu/, where pack.sh put some
# and it is Python 3.12. Results: $OUT [.gpu/out].
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
export OUT=${OUT:-$PWD/.gpu/out} PYTHONUNBUFFERED=1
mkdir -p "$OUT"

for part in wheels source; do
    if [ -f ".gpu/$part/SHA256SUMS" ]; then
        (cd ".gpu/$part" && sha256sum --check --quiet SHA256SUMS)
    fi
done
if [ -f .gpu/wheels/SHA256SUMS ] && "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))'; then
    site=${TMPDIR:-/tmp}/trillama-gpu/site-$(sha256sum <.gpu/wheels/SHA256SUMS | cut -c1-12)
    if [ ! -f "$site/.complete" ]; then
        rm -rf "$site"
        "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-cache-dir \
            --target "$site" .gpu/wheels/*.whl
        touch "$site/.complete"
    fi
fi
export PYTHONPATH=${site:+$site:}$PWD
log=
for word in "$@"; do
    case $word in -*) break ;; *) log+=${log:+-}$word ;; esac
done
"$python" -m bench.gpu "$@" 2>&1 | tee "$OUT/${log:-run}.log"
