#!/bin/sh
# What a virtual machine of the lab runs at boot, as the child of its pid 1: what start-host and the kernel
# give a host of namespaces, then the same as there. The environment (name, octet, kind, control) comes from
# the kernel's command line.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o mode=755,nosuid devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666,mode=620,gid=5 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -sf /proc/self/mounts /etc/mtab
mount -t ext4 -o ro /dev/vdc /opt/oarlock

# Nobody else loads drivers here. eth0 is the control's, eth1 link 1, and so on.
modprobe virtio_net
modprobe i6300esb
hostname "$vm_name"
echo "$vm_name" >/etc/hostname
mkdir -p /etc/lab
: >"/etc/lab/kind.$vm_kind"
{
    echo "link set lo up"
    echo "address add 10.77.$vm_control.$vm_octet/24 dev eth0"
    echo "link set eth0 up"
    for link in 1 2; do
        echo "address add 10.77.$link.$vm_octet/24 dev eth$link"
        echo "link set eth$link up"
    done
} | ip -batch -

# Restarted whatever ends it: without it nobody gets in.
while :; do
    /opt/oarlock/oarlock-lab machine-agent "10.77.$vm_control.$vm_octet"
    sleep 1
done &
exec </dev/null >>/var/log/console 2>&1
exec /usr/local/sbin/lab-boot
