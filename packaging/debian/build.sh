#!/bin/sh
# Builds the package for one Debian release: build.sh SUITE WHEEL OUT. As root: a debootstrap of that release makes the
# venv, so that its Python, its markers of dependencies and its compiled files are that release's.
set -eu
suite=$1 wheel=$(readlink -f "$2") out=$(readlink -f "$3")
here=$(dirname "$(readlink -f "$0")")
cd "$here/../.."
root=.roots/build-$suite stage=.roots/deb-$suite venv=/opt/trillama/venv
"$here/root.sh" "$suite" "$root" python3-venv

inside() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
        ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} ${https_proxy:+https_proxy="$https_proxy"} chroot "$root" "$@"
}

rm -rf "$root/opt/trillama" "$stage"
cat /etc/resolv.conf > "$root/etc/resolv.conf"
cp "$wheel" constraints.txt "$root/opt/"
inside python3 -m venv $venv
inside $venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --constraint /opt/constraints.txt \
    "/opt/$(basename "$wheel")[otel,pdf]"
inside $venv/bin/pip check
rm "$root/opt/$(basename "$wheel")" "$root/opt/constraints.txt"

python=$(inside python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wheel_version=$(inside $venv/bin/python -c 'from importlib.metadata import version; print(version("trillama"))')
release=$(. "$root/etc/os-release" && echo "$VERSION_ID")
version=$wheel_version-1~deb${release}u1
architecture=$(inside dpkg --print-architecture)
maintainer=${TRILLAMA_MAINTAINER:-the trillama authors <trillama@localhost>} # an address is asked for, and there is none

mkdir -p "$stage/DEBIAN" "$stage/opt" "$stage/etc/trillama" "$stage/usr/bin" "$stage/usr/lib/systemd/system" \
    "$stage/usr/share/doc/trillama"
mv "$root/opt/trillama" "$stage/opt/trillama"
configs=$stage$venv/lib/python$python/site-packages/launcher/configs
# The template for `service install`, with the package's own user in place of a dynamic one.
sed -e '1,/^\[Unit\]/{/^#/d}' -e 's/^DynamicUser=yes$/User=trillama\nGroup=trillama/' \
    -e "s|^ExecStart=.*|ExecStart=$venv/bin/python -P -m launcher serve --config /etc/trillama/host.toml|" \
    "$configs/systemd/trillama.service" > "$stage/usr/lib/systemd/system/trillama.service"
install -m 644 "$here/host.toml" "$stage/etc/trillama/host.toml"
install -m 755 "$here/trillama" "$stage/usr/bin/trillama"
install -m 644 LICENSE "$stage/usr/share/doc/trillama/copyright"
cp -r README.md docs "$stage/usr/share/doc/trillama/"
gzip -9n < CHANGELOG.md > "$stage/usr/share/doc/trillama/changelog.gz"
install -m 755 "$here/postinst" "$here/prerm" "$here/postrm" "$stage/DEBIAN/"
echo /etc/trillama/host.toml > "$stage/DEBIAN/conffiles"
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@PYTHON@/$python/" \
    -e "s/@PYTHON_AFTER@/3.$((${python#3.} + 1))~/" -e "s/@SIZE@/$(du -sk "$stage" | cut -f1)/" \
    -e "s|@MAINTAINER@|$(printf %s "$maintainer" | sed 's/[&|\\]/\\&/g')|" "$here/control" > "$stage/DEBIAN/control"
(cd "$stage" && find opt usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
chmod -R u+w,go+rX,go-w "$stage"
dpkg-deb --root-owner-group -Zxz -z1 --build "$stage" "$out/trillama_${version}_$architecture.deb"
rm -rf "$stage"
