# An OAR with its database on server1, as the packages make them, becomes a cluster of two servers and a
# witness; it survives the death of a server; it becomes a single server again. Jobs and data are counted
# all along.
step=start
trap '[ $? -eq 0 ] || echo "FAILED: $step"' EXIT
ok() { echo "ok: $step"; }
fail() {
    echo "  $*"
    exit 1
}
await() {
    for _ in $(seq "$1"); do
        if (shift && "$@") >/mnt/awaited 2>&1; then return 0; fi
        sleep 0.2
    done
    shift
    cat /mnt/awaited
    fail "not in time: $*"
}
sql() { on "$1" setpriv --reuid postgres --regid postgres --init-groups psql -XAtq -d oar -c "$2"; }
# As an ordinary user on the frontend; prints the number of the job.
submit() { on frontend setpriv --reuid alice --regid alice --init-groups sh -c \
    'cd /home/alice && timeout 60 oarsub "sleep 1" 2>&1' | sed -n 's/^OAR_JOB_ID=//p'; }
ended() { [ "$(on frontend timeout 20 oarstat -s -j "$1" | sed -n 's/.*: //p')" = Terminated ]; }
run_job() {
    job=$(submit)
    [ -n "$job" ] || fail "oarsub gave no job"
    await 300 ended "$job"
}
deploy='oarlock deploy --cluster genepi --timing fast --node server1=10.88.1.11 --node server2=10.88.1.12
    --witness frontend=10.88.1.13 --client node1 --address 10.88.1.100/24 --service oar --package /opt/oarlock.deb'

step="machines, ssh between them"
for name in $names; do await 50 on $name sh -c 'ip -4 addr show dev eth0 | grep -q 10.88'; done
for name in $names; do await 50 on server1 ssh -o BatchMode=yes $name true; done
ok

step="a plain server: PostgreSQL and OAR as their packages start them, a job ends"
on server1 pg_createcluster 15 main --start >/dev/null
on server2 pg_createcluster 15 main --start >/dev/null
for name in $names; do
    on $name sed -i -e 's/^DB_TYPE=.*/DB_TYPE="Pg"/' -e 's/^DB_PORT=.*/DB_PORT="5432"/' \
        -e "s/^DB_HOSTNAME=.*/DB_HOSTNAME=\"$([ $name = server1 ] && echo localhost || echo server1)\"/" \
        -e 's/^SERVER_HOSTNAME=.*/SERVER_HOSTNAME="server1"/' -e 's/^DB_BASE_PASSWD=.*/DB_BASE_PASSWD="oar"/' \
        -e 's/^DB_BASE_PASSWD_RO=.*/DB_BASE_PASSWD_RO="oar_ro"/' \
        -e 's/^JOB_RESOURCE_MANAGER_PROPERTY_DB_FIELD=/#&/' /etc/oar/oar.conf
done
on server1 sh -c 'echo "host all all 10.88.1.0/24 scram-sha-256" >>/etc/postgresql/15/main/pg_hba.conf
    echo "listen_addresses = '"'*'"'" >>/etc/postgresql/15/main/postgresql.conf'
on server1 pg_ctlcluster 15 main restart
on server1 oar-database --create --db-is-local --force-yes >/mnt/oar-database 2>&1 || fail "$(cat /mnt/oar-database)"
on node1 /usr/sbin/sshd -f /etc/oar/sshd_config
on server1 sh -c '/etc/init.d/oar-server start >/dev/null 2>&1 </dev/null'
await 50 on server1 oarnodesetting -a -h node1 -p cpuset=0
run_job
before=$(sql server1 'select count(*) from jobs')
ok

step="--dry-run tells the plan and changes nothing"
on server1 dpkg --install /opt/oarlock.deb >/mnt/dpkg 2>&1 || fail "$(cat /mnt/dpkg)"
sums() { for name in $names; do on $name sh -c 'cat /etc/hosts /etc/oar/oar.conf /etc/postgresql/15/main/* 2>/dev/null | sha256sum'; done; }
were=$(sums)
on server1 $deploy --dry-run >/mnt/plan 2>&1 || fail "$(cat /mnt/plan)"
[ "$(sums)" = "$were" ] || fail "files changed"
grep -q 'nothing was done' /mnt/plan || fail "$(cat /mnt/plan)"
cat /mnt/plan
run_job
ok

step="what would lose data is refused"
sql_on_second() { on server2 setpriv --reuid postgres --regid postgres --init-groups psql -XAtq -d postgres -c "$1"; }
sql_on_second 'create database precious'
if on server1 $deploy --yes >/mnt/refused 2>&1; then fail "not refused"; fi
grep -q 'may hold data of its own' /mnt/refused || fail "$(cat /mnt/refused)"
sql_on_second 'drop database precious'
ok

step="interrupted while the service is away: said so, with what brings it back by hand"
on frontend touch /run/refuse-start
if on server1 $deploy --yes >/mnt/stuck 2>&1; then fail "it went on"; fi
grep -q 'the agent votes' /mnt/stuck && grep -q 'the service is away; by hand: .*pg_ctlcluster 15 main start' /mnt/stuck ||
    fail "$(cat /mnt/stuck)"
on frontend rm /run/refuse-start
ok

step="run again it goes on where it was: the database and OAR are under oarlock, with their data"
on server1 $deploy --yes >/mnt/deployed 2>&1 || { cat /mnt/deployed; for name in server1 server2 frontend; do echo "== $name"; on $name tail -n 15 /var/log/agent || true; done; fail "deploy"; }
cat /mnt/deployed
grep -q '^is so: .*is stopped and not started at boot' /mnt/deployed || fail "it began anew"
run_job
after=$(sql server1 'select count(*) from jobs')
[ "$after" -eq $((before + 2)) ] || fail "jobs before: $before, now: $after"
[ "$(on frontend getent hosts oar | cut -d' ' -f1)" = 10.88.1.100 ] || fail "oar is $(on frontend getent hosts oar)"
ok

step="deployed again: everything is so already"
on server1 $deploy --yes >/mnt/again 2>&1 || fail "$(cat /mnt/again)"
if grep -q '^done:' /mnt/again; then cat /mnt/again; fail "something was done again"; fi
ok

step="server1 loses its power: server2 goes on with all jobs, and ends new ones"
power_off server1 11
await 200 sh -c "$(command -v nsenter) --target $(cat /mnt/server2/pid) --mount --uts --ipc --net --pid --root --wd=/ env --chdir=/ oarlock status --json | grep -q '\"owner\":\"server2\",.*\"state\":\"started\"\\|\"state\":\"started\",\"owner\":\"server2\"'"
[ "$(sql server2 'select count(*) from jobs')" -ge "$after" ] || fail "jobs are missing"
run_job
ok
now=$(sql server2 'select count(*) from jobs')

step="undeployed onto server2: a plain server with all jobs, which ends new ones"
undeploy='oarlock undeploy --node server2 --node frontend --node node1 --keep server2'
on server2 $undeploy --yes >/mnt/undeployed 2>&1 || { cat /mnt/undeployed; fail "undeploy"; }
cat /mnt/undeployed
[ "$(sql server2 'select count(*) from jobs')" -ge "$now" ] || fail "jobs are missing"
[ "$(on frontend getent hosts oar | cut -d' ' -f1)" = 10.88.1.12 ] || fail "oar is $(on frontend getent hosts oar)"
run_job
on server2 sh -c 'ls /etc/oarlock.before-undeploy-* /etc/rc2.d/S*oar-server' >/dev/null
ok
echo "all steps were seen"
