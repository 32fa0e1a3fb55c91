#!/bin/sh
# What a lab host runs at boot, as the child of its pid 1. Databases and OAR's server are not
# started here: that is the product's work.
mkdir -p /run/lock /run/sshd /run/oar
install -d -m 2775 -o postgres -g postgres /run/postgresql
if id mysql >/dev/null 2>&1; then
    # Where clients on this host look for the server; the product's has its socket in a directory of its own.
    install -d -m 755 -o mysql -g mysql /run/mysqld
    ln -s "/run/oarlock/$(cat /etc/lab/database-group)-db/mariadb.sock" /run/mysqld/mysqld.sock
fi
/usr/sbin/sshd
if [ -e /etc/lab/kind.node ]; then
    # What the package's own script starts: OAR's ssh server on port 6667.
    /usr/sbin/sshd -f /etc/oar/sshd_config
fi
if [ -e /etc/oarlock/oarlock.toml ]; then
    /usr/local/sbin/lab-agent start
fi
exec sleep infinity
