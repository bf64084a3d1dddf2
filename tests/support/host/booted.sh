# A systemd of its own: namespaces for mounts, processes, host name, IPC and network, a copy of a system that is thrown away,
# and one cgroup below the root in which all of it runs. `unshare --mount --uts --ipc --net sh booted.sh FOLDER SYSTEM
# TARGET=SOURCE …` boots the system in that folder, / or a Debian of its own, with each source mounted at its target;
# SIGTERM, or the death of this shell, ends it.
set -eu
base=$1 root=$1/root system=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$base"
mkdir "$base/upper" "$base/work" "$root" "$base/cgroup"
mount -t overlay -o "lowerdir=$system,upperdir=$base/upper,workdir=$base/work" overlay "$root"
for at in run tmp dev etc/systemd/system lib/systemd/system lib/systemd/system-generators; do
    mount -t tmpfs -o mode=755 tmpfs "$root/$at"
done
chmod 1777 "$root/tmp"
units=/lib/systemd/system from=${system%/}/lib/systemd/system
cp -a "$from"/*.target "$from"/*.slice "$from"/systemd-journald* "$root$units/"
mkdir "$root$units/sysinit.target.wants"
ln -s ../systemd-journald.service "$root$units/sysinit.target.wants/"
for device in null zero full random urandom tty; do cp -a "/dev/$device" "$root/dev/"; done
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
: > "$root/etc/fstab"
for what in "$@"; do
    mkdir -p "$root${what%%=*}"
    mount --bind "${what#*=}" "$root${what%%=*}"
done

mount -t cgroup2 cgroup2 "$base/cgroup"
own=$base/cgroup/trillama-test-$$
mkdir "$own"
sh -c '
    echo $$ > "$1/cgroup.procs"
    exec setpriv --pdeathsig KILL unshare --cgroup --pid --fork --kill-child --mount sh -c "$2" sh "$3"
' sh "$own" '
    mount -t proc proc "$1/proc"
    mount -t sysfs -o ro sysfs "$1/sys"
    mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
    ip link set lo up
    cd "$1"
    mkdir -p mnt/old
    pivot_root . mnt/old
    umount -l /mnt/old
    mount --make-rshared / # a container is given it so: systemd hands mounts from one namespace to another
    exec env -i container=trillama-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \
        --unit=multi-user.target --log-target=console --show-status=no
' "$root" &
booted=$!
trap 'kill -KILL $booted 2> /dev/null || true' TERM INT
wait $booted || true
wait $booted || true # the first may have been ended by the trap
tries=0
until find "$own" -depth -type d -exec rmdir {} + 2> /dev/null || [ $tries -ge 100 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
