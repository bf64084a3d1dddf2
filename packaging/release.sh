#!/bin/sh
# `make release`: sdist, wheel, one .deb for each Debian release, the containers' files and SHA256SUMS, into dist/.
# Without root or debootstrap it makes all but the .deb, and says so.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
tools=.venv-release/bin
rm -rf dist
mkdir -p dist .roots
PIP_CONSTRAINT=$PWD/constraints.txt $tools/python -m build --outdir dist . > .roots/build.log 2>&1 || { cat .roots/build.log >&2; exit 1; }
$tools/twine check --strict dist/*
for suite in bookworm trixie; do
    packaging/debian/build.sh $suite dist/*.whl dist || {
        [ $? = 77 ] || exit 1
        echo "no .deb for $suite was built" >&2
    }
done
sh packaging/containers/check.sh
cp constraints.txt packaging/containers/compose.yaml dist/
(cd dist && sha256sum -- * > SHA256SUMS)
ls -l dist
