#!/bin/sh
# On the host that owns the database: what the lab's clients and OAR expect to find in it. Safe to
# run again.
set -eu
psql() { runuser -u postgres -- psql -X -q -v ON_ERROR_STOP=1 -At "$@"; }
if [ -z "$(psql -d postgres -c "select 1 from pg_roles where rolname = 'bench'")" ]; then
    psql -d postgres -c "create role bench login password 'bench'"
fi
if [ -z "$(psql -d postgres -c "select 1 from pg_database where datname = 'bench'")" ]; then
    psql -d postgres -c "create database bench owner bench"
fi
if [ -z "$(psql -d postgres -c "select 1 from pg_database where datname = 'oar'")" ]; then
    oar-database --create --db-is-local --force-yes
fi
