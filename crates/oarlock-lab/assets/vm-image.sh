#!/bin/sh
# Makes what all virtual machines of the lab boot from: an image of a root file system, the kernel, and
# what the first file system in memory needs. Runs in namespaces of its own, on the machine's file system.
# Arguments: the root, the layer over it, overlay's work directory, where both are mounted together, files
# to be put there, where the results go; then the packages.
set -eu
root=$1 layer=$2 work=$3 merged=$4 files=$5 out=$6
shift 6
mount -t overlay overlay -o "lowerdir=$root,upperdir=$layer,workdir=$work" "$merged"
mount -t proc proc "$merged/proc"
cp /etc/resolv.conf /etc/hosts "$merged/etc/"
mkdir "$merged/kernel"
chroot "$merged" /usr/bin/env -i DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /bin/sh -euc '
        apt-get update
        apt-get install -y --no-install-recommends "$@"
        apt-get clean
        # The kernel is unpacked, not installed: nothing here is to make a boot loader or an initramfs for it.
        apt-get install -y --no-install-recommends --download-only linux-image-amd64
        dpkg-deb -x /var/cache/apt/archives/linux-image-[0-9]*.deb /kernel
        apt-get clean
        rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/man/*
        release=$(basename /kernel/lib/modules/*)
        cd "/kernel/lib/modules/$release/kernel"
        # What only real hardware needs.
        rm -rf sound
        cd drivers
        for dir in *; do
            case $dir in block | char | md | net | virtio | watchdog) ;; *) rm -rf "$dir" ;; esac
        done
        cd net
        for dir in */; do
            case $dir in wireguard/) ;; *) rm -rf "$dir" ;; esac
        done
        mkdir -p /usr/lib/modules
        mv "/kernel/lib/modules/$release" /usr/lib/modules/
        depmod "$release"
        : >/etc/resolv.conf
    ' vm-image "$@"
umount "$merged/proc"

cp "$merged"/kernel/boot/vmlinuz-* "$out/vmlinuz"
rm -rf "$merged/kernel"
mkdir -p "$merged/opt/oarlock" "$merged/mnt"
cp -a "$files/." "$merged/"
cp "$merged/bin/busybox" "$out/busybox"

# The modules that it takes to get at the root, those that others need first.
release=$(basename "$merged"/usr/lib/modules/*)
modules=$merged/usr/lib/modules/$release
mkdir "$out/modules"
for module in virtio_pci virtio_blk ext4 overlay; do
    chroot "$merged" /usr/bin/env PATH=/usr/sbin:/usr/bin modprobe --set-version "$release" --show-depends "$module"
done | while read -r kind file rest; do
    name=$(basename "$file")
    if [ "$kind" = insmod ] && [ ! -e "$out/modules/$name" ]; then
        cp "$merged$file" "$out/modules/$name"
        echo "$name" >>"$out/modules.order"
    fi
done
# Room for nothing more: it is only read.
size_mib=$(($(du -sm "$merged" | cut -f1) * 115 / 100 + 64))
mke2fs -q -t ext4 -O ^has_journal -m 0 -L root -d "$merged" "$out/root.ext4" "${size_mib}M"
umount "$merged"
