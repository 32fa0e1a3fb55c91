#!/bin/sh
# On the host that owns the database: what the lab's clients and OAR expect to find in it. Safe to
# run again.
set -eu
sql() { mariadb --socket=/run/mysqld/mysqld.sock --user=root --batch --skip-column-names "$@"; }
sql -e "
    create database if not exists bench;
    create user if not exists bench@'%' identified by 'bench';
    grant all on bench.* to bench@'%'"
if [ -z "$(sql -e "select 1 from information_schema.schemata where schema_name = 'oar'")" ]; then
    oar-database --create --db-is-local --force-yes
fi
