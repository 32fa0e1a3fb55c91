#!/bin/sh
# The first process of a host's namespaces, still on the machine's file system. It makes the
# host's own file system, waits until its cables are plugged in, and becomes the host's pid 1.
# Arguments: name, directory, lower layers, program directory, home
# directories, addresses (link=address/prefix …). HIERARCHIES names the control groups, DISKS the disks of
# its own as name=mode=place.
set -eu
name=$1 dir=$2 lower=$3 bin=$4 home=$5
shift 5

# /proc is still the machine's, so this is our pid as the machine sees it.
read -r pid rest </proc/self/stat

hostname "$name"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" "$dir/mnt"
cd "$dir/mnt"

# Each disk takes the place of a directory, at first with what the layers have there and nothing else: who
# finds lost+found in an agent's directory would take it for somebody's memory. It goes last: while it is
# there, the copy may be incomplete.
for disk in $DISKS; do
    image=$dir/${disk%%=*}.image rest=${disk#*=}
    mode=${rest%%=*} place=.${rest#*=}
    mkdir -p "$dir/disk"
    mkdir -p -m "$mode" "$place"
    mount -t ext4 -o loop,nodev "$image" "$dir/disk"
    if [ -d "$dir/disk/lost+found" ]; then
        cp -a "$place/." "$dir/disk/"
        rmdir "$dir/disk/lost+found"
    fi
    mount --move "$dir/disk" "$place"
done

mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr

# Inside our cgroup namespace each mount shows only this host's own part of the hierarchy.
mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
for hierarchy in $HIERARCHIES; do
    mkdir "sys/fs/cgroup/$hierarchy"
    case $hierarchy in
    unified) mount -t cgroup2 cgroup2 sys/fs/cgroup/unified ;;
    *) mount -t cgroup -o "$hierarchy" "$hierarchy" "sys/fs/cgroup/$hierarchy" ;;
    esac
done

mkdir -p opt/oarlock
mount --bind -o ro "$bin" opt/oarlock
mount --bind "$home" home

echo "$pid"
read -r plugged

{
    echo "link set lo up"
    for pair; do
        echo "address add ${pair#*=} dev eth${pair%%=*}"
        echo "link set eth${pair%%=*} up"
    done
} | ip -batch -

pivot_root . mnt
umount -l /mnt
exec </dev/null >>/var/log/console 2>&1
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    chroot . /usr/bin/tini -- /usr/local/sbin/lab-boot
