#!/bin/busybox sh
# The init of the first file system: finds the root that all machines share (the first disk, read only),
# lays the machine's own disk (the second) over it, and goes on there. The machine's name and the last
# octet of its addresses are words of the kernel's command line, handed on as the environment.
bb=/bin/busybox
failed() {
    echo "vm-init: $*" >&2
    # The kernel's panic ends the machine, and the one who waits for it sees why on the console.
    exit 1
}
while read -r module; do
    $bb insmod "/modules/$module" || echo "vm-init: cannot load $module" >&2
done </modules.order
for dir in dev proc lower own new; do
    $bb mkdir -p "/$dir"
done
$bb mount -t devtmpfs dev /dev || failed "no /dev"
$bb mount -t ext4 -o ro,noatime /dev/vda /lower || failed "no root"
$bb mount -t ext4 -o noatime /dev/vdb /own || failed "no disk of its own"
$bb mkdir -p /own/upper /own/work
$bb mount -t overlay -o lowerdir=/lower,upperdir=/own/upper,workdir=/own/work overlay /new || failed "no overlay"
$bb umount /dev
exec $bb switch_root /new /usr/bin/tini -- /usr/local/sbin/vm-boot
failed "no switch_root"
