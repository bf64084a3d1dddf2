#!/bin/sh
# Builds the image of cpu.Containerfile without a registry and without a container engine's privileges: its base is a Debian 13
# of debootstrap, each step runs in a chroot. build.sh STORAGE; as root. Exits with 77 where it cannot be built here.
set -eu
cd "$(dirname "$(readlink -f "$0")")/../.."
mkdir -p "$1"
storage=$(readlink -f "$1")
command -v buildah > /dev/null || { echo "apt-get install buildah" >&2; exit 77; }
packaging/debian/root.sh trixie .roots/base-trixie

b() {
    buildah --root "$storage/root" --runroot "$storage/run" "$@"
}

base=$(b from scratch)
b add --quiet "$base" .roots/base-trixie / > /dev/null
b commit --quiet --rm "$base" localhost/debian:13-slim > /dev/null
b build --isolation chroot --format docker --build-arg BASE=localhost/debian:13-slim --tag localhost/trillama \
    --file packaging/containers/cpu.Containerfile .
