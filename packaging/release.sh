#!/bin/sh
# `make release`: sdist, wheel, one .deb for each Debian release, and SHA256SUMS, into dist/. The image for containers is
# built, too, as a check of its file, and not kept. What needs root, debootstrap or buildah is left out without, and named.
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
storage=$(mktemp -d .roots/buildah.XXXXXX)
packaging/containers/build.sh "$storage" > .roots/container.log 2>&1 || {
    [ $? = 77 ] || { tail -n 30 .roots/container.log >&2; exit 1; }
    echo "the container's file was not checked: $(tail -n 1 .roots/container.log)" >&2
}
rm --one-file-system -rf "$storage"
cp constraints.txt dist/
(cd dist && sha256sum -- * > SHA256SUMS)
ls -l dist
