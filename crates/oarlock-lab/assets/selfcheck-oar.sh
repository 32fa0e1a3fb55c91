#!/bin/sh
# On the host that plays the server in the self-check: PostgreSQL, the service address and OAR
# started by hand. Arguments: PostgreSQL's version, the service address.
set -eu
bin=/usr/lib/postgresql/$1/bin
data=/var/lib/postgresql/$1/selfcheck
ip address add "$2/24" dev eth1
install -d -m 700 -o postgres -g postgres "$data"
runuser -u postgres -- "$bin/initdb" -D "$data" --auth-host=scram-sha-256 --auth-local=peer \
    --encoding=UTF8 --locale=C.UTF-8 >/dev/null
echo "listen_addresses = '*'" >>"$data/postgresql.conf"
echo 'host all all 10.77.0.0/16 scram-sha-256' >>"$data/pg_hba.conf"
runuser -u postgres -- setsid "$bin/postgres" -D "$data" </dev/null >/var/log/selfcheck-postgres.log 2>&1 &
tries=0
until "$bin/pg_isready" -q; do
    tries=$((tries + 1))
    [ "$tries" -le 100 ]
    sleep 0.1
done
oar-database --create --db-is-local --force-yes
oar-database --check
setsid runuser -u oar -- /usr/sbin/Almighty </dev/null >/var/log/selfcheck-almighty.log 2>&1 &
oarnodesetting -a -h node1 -p cpuset=0
