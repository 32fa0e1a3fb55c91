#!/bin/sh
# Machines of their own for `oarlock deploy`: a database and OAR as their packages leave them, ssh between
# them, no oarlock. The first process of its namespaces. Arguments: the root (Debian with OAR's and
# PostgreSQL's packages), the package to deploy, the text of systemctl's stand-in, of what runs on each, of the course.
set -eu
root=$1 package=$2 systemctl=$3 machine=$4 course=$5
names='server1 server2 frontend node1'

mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
printf '%s\n' "$machine" >/mnt/machine.sh
printf "%s\n" "$course" >/mnt/course.sh
n=10
for name in $names; do
    n=$((n + 1))
    dir=/mnt/$name
    mkdir -p "$dir/upper" "$dir/work" "$dir/root"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
    cp "$package" "$dir/root/opt/oarlock.deb"
    mkdir -p "$dir/root/run"
    printf '%s\n' "$systemctl" >"$dir/root/usr/bin/systemctl"
    chmod 755 "$dir/root/usr/bin/systemctl"
    {
        echo '127.0.0.1 localhost'
        m=10
        for other in $names; do
            m=$((m + 1))
            echo "10.88.1.$m $other"
        done
    } >"$dir/root/etc/hosts"
    mkfifo "$dir/plugged"
    unshare --mount --uts --ipc --net --pid --fork --kill-child sh /mnt/machine.sh "$name" "10.88.1.$n" &
    # Its own process is the child of unshare's.
    outer=$!
    pid=
    for _ in $(seq 100); do
        pid=$(cat /proc/$outer/task/$outer/children 2>/dev/null | tr -d ' ')
        if [ -n "$pid" ] && [ "$(readlink /proc/$pid/ns/net)" != "$(readlink /proc/self/ns/net)" ]; then break; fi
        sleep 0.05
    done
    echo "$pid" >"$dir/pid"
    ip link add "p$n" type veth peer name eth0 netns "$pid"
    ip link set "p$n" master br0 up
    echo plugged >"$dir/plugged"
done

# Runs on a machine: its own root and namespaces.
on() {
    name=$1
    shift
    nsenter --target "$(cat "/mnt/$name/pid")" --mount --uts --ipc --net --pid --root \
        env -i --chdir=/ PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root "$@"
}
power_off() {
    ip link del "p$2"
    kill -9 "$(cat "/mnt/$1/pid")"
}
. /mnt/course.sh
