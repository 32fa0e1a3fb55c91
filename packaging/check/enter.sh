#!/bin/sh
# The first process of a throw-away machine: a layer in memory over a clean root. Runs in namespaces of its
# own. Arguments: the root, two packages of rising version, then the texts of systemctl's stand-in, of
# what both courses have in common, and of the course.
set -eu
root=$1 old=$2 new=$3 systemctl=$4 common=$5 course=$6

mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
cd /mnt/root
mount -t proc proc proc
mkdir -p dev/pts packages
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -sf pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
cp "$old" packages/old
cp "$new" packages/new
ip link set lo up
hostname one

# In place of the service manager: what it is told is written down, and the agent is really started and stopped.
mv usr/bin/systemctl usr/bin/systemctl.real
printf '%s\n' "$systemctl" >usr/bin/systemctl
chmod 755 usr/bin/systemctl
mkdir -p run/systemd/system
printf '%s\n' "$common" >packages/common.sh
printf '%s\n' "$course" >packages/course.sh
# In the background: the first process waits for all that lose their parent.
chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    /bin/sh -eu /packages/course.sh &
wait $!
