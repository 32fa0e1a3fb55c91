#!/bin/sh
# Runs inside a new Debian root, in namespaces of its own: installs the packages named on the
# command line and prepares what every lab host shares.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

# No package may start a service: the hosts start what they need themselves.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
# The root is thrown away when its build is interrupted, so dpkg need not sync every file.
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/lab
# A database cluster belongs to a host, not to the root they share.
mkdir -p /etc/postgresql-common
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf

apt-get update
apt-get install -y --no-install-recommends "$@"
apt-get clean
rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/man/*

# The ordinary user of the cluster; ssh between the hosts without a question.
useradd --create-home --uid 1100 --shell /bin/bash alice
install -d -m 700 -o alice -g alice /home/alice/.ssh
ssh-keygen -q -t ed25519 -N '' -C alice -f /home/alice/.ssh/id_ed25519
cp /home/alice/.ssh/id_ed25519.pub /home/alice/.ssh/authorized_keys
chown alice:alice /home/alice/.ssh/*
install -d -m 700 /root/.ssh
ssh-keygen -q -t ed25519 -N '' -C root -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys
# All hosts share these host keys, so one line covers every name.
for key in /etc/ssh/ssh_host_*_key.pub; do
    printf '* %s\n' "$(cut -d' ' -f1,2 "$key")"
done >/etc/ssh/ssh_known_hosts
