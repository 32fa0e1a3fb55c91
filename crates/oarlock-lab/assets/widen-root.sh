#!/bin/sh
# Installs more packages over a Debian root without touching it: they go into a layer of their own.
# Runs in namespaces of its own. Arguments: the root, the layer, overlay's work directory, where both are
# mounted together; then the packages.
set -eu
root=$1 layer=$2 work=$3 merged=$4
shift 4
mount -t overlay overlay -o "lowerdir=$root,upperdir=$layer,workdir=$work" "$merged"
mount -t proc proc "$merged/proc"
cp /etc/resolv.conf /etc/hosts "$merged/etc/"
chroot "$merged" /usr/bin/env -i DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /bin/sh -euc '
        apt-get update
        apt-get install -y --no-install-recommends "$@"
        apt-get clean
        rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/man/*
        # A database belongs to a host, not to the root they share; nor is it started at boot.
        rm -rf /var/lib/mysql
        rm -f /etc/systemd/system/multi-user.target.wants/mariadb.service
        : >/etc/resolv.conf
    ' widen-root "$@"
umount "$merged/proc"
umount "$merged"
