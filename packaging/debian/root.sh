#!/bin/sh
# Makes a Debian of that release in a folder, with the packages named, unless it is there: root.sh SUITE FOLDER PACKAGE …
# As root. pip and curl in it trust what this machine trusts. Exits with 77 where it cannot be made on this machine.
set -eu
suite=$1 folder=$2
shift 2
[ ! -e "$folder" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "debootstrap and chroot need root" >&2; exit 77; }
command -v debootstrap > /dev/null || { echo "apt-get install debootstrap" >&2; exit 77; }
mkdir -p "$(dirname "$folder")"
new=$(mktemp -d "$folder.XXXXXX")
chmod 755 "$new"
cleared() {
    umount "$new/proc" "$new/sys" 2> /dev/null || true # debootstrap's, where it was interrupted
    rm --one-file-system -rf "$new"
}
trap cleared EXIT
packages=$(printf '%s,' ca-certificates "$@")
debootstrap --variant=minbase --include="${packages%,}" "$suite" "$new" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" > "$folder.log" 2>&1 || { tail -n 20 "$folder.log" >&2; exit 1; }
cat /etc/ssl/certs/ca-certificates.crt > "$new/etc/ssl/certs/ca-certificates.crt"
[ -e "$folder" ] || mv -T "$new" "$folder" # another one may have been quicker
