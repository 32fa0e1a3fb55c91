#!/bin/sh
# Becomes the first process of one machine. Arguments: its name, its address.
set -eu
name=$1 address=$2
hostname "$name"
cd "/mnt/$name/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
mount -t tmpfs -o mode=755 tmpfs run
mkdir dev/pts dev/shm run/lock run/sshd run/oar
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
echo ready >ready
read -r _ <"/mnt/$name/plugged"
ip link set lo up
ip addr add "$address/24" dev eth0
ip link set eth0 up
mkdir -p old
pivot_root . old
umount -l /old
install -d -m 2775 -o postgres -g postgres /run/postgresql
/usr/sbin/sshd
exec </dev/null >>/var/log/console 2>&1
exec chroot . /usr/bin/tini -- sleep infinity
