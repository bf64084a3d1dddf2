#!/usr/bin/env bash
# Fills .gpu/ with what a machine without a network needs for run.sh: the pinned source of llama.cpp, and the wheels
# that trillama needs beside PyTorch and numpy, for Python 3.12 on x86-64. Run it where PyPI can be reached.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
target=${1:-.gpu}
most_mib=50

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$target/source" "$target/wheels"
mkdir -p "$target/source" "$target/wheels"

# The source, without what neither llama-server nor llama-bench is made of.
package=$("$python" -c 'from launcher.build.source import PACKAGE; print(PACKAGE)')
"$python" -m pip download --quiet --no-deps --no-binary "${package%%==*}" --dest "$work" "$package"
tar -xzf "$work"/*.tar.gz -C "$work"
folder=$(cd "$work" && echo llama_cpp_python-*/vendor/llama.cpp)
for unused in benches conversion docs examples gguf-py media models requirements skills tests; do
    rm -rf "${work:?}/$folder/$unused"
done
tar -C "$work" --sort=name --owner=0 --group=0 --mtime=@0 -c "$folder" | xz -9e -T0 >"$target/source/llama.cpp.tar.xz"

# The wheels. The engine is built there, so neither the embedded one (xllamacpp) nor its libgomp (pykdtree) is needed.
"$python" - >"$work/requirements" <<'PYTHON'
import tomllib
for one in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]:
    if not one.startswith(("xllamacpp", "pykdtree", "numpy")):
        print(one)
PYTHON
platforms=(manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux1_x86_64)
"$python" -m pip download --quiet --only-binary :all: --python-version 3.12 --implementation cp \
    "${platforms[@]/#/--platform=}" --constraint constraints.txt --dest "$target/wheels" --requirement "$work/requirements"
rm -f "$target"/wheels/numpy-*.whl # PyTorch's own is there

for part in source wheels; do
    (cd "$target/$part" && sha256sum -- *.* >"$work/sums" && mv "$work/sums" SHA256SUMS)
done
mib=$(du -sm "$target/source" "$target/wheels" | awk '{ total += $1 } END { print total }')
echo "$target: $mib MiB ($(ls "$target/wheels" | wc -l) wheels), for a Python 3.12 with PyTorch and numpy"
test "$mib" -le "$most_mib" || { echo "more than $most_mib MiB" >&2; exit 1; }
