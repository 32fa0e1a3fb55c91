# Shared by both courses. Each step says what was seen; the first that is not so ends it all.
step=start
trap '[ $? -eq 0 ] || echo "FAILED: $step"' EXIT
ok() { echo "ok: $step"; }
fail() {
    echo "  $*"
    exit 1
}
# Until it is so, at most 20 s.
await() {
    for _ in $(seq 200); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "not within 20 s: $*"
}
log=/var/log/systemctl
: >$log

serves() { oarlock status --json | grep -q '"state":"started"'; }
# The service's process, by its command.
sleeper() {
    for process in /proc/[0-9]*; do
        if tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -qx '/bin/sleep 100000 '; then
            echo "${process#/proc/} $(cut -d' ' -f22 "$process/stat" 2>/dev/null)"
        fi
    done
}
gone() { [ -z "$(sleeper)" ]; }
sums() { find /etc/oarlock -type f -exec sha256sum {} + | sort; }

# A cluster of one that runs one service, as init makes it and an administrator adds to it.
make_cluster() {
    oarlock init --cluster check --node one=127.0.0.1 --this one 2>/var/log/init
    cat >>/etc/oarlock/oarlock.toml <<'TOML'

[[group]]
name = "main"
nodes = ["one"]

  [[group.resource]]
  name = "sleeper"
  kind = "service"
  command = ["/bin/sleep", "100000"]
TOML
}

installed() {
    step="installed: the program runs, the group is there, the unit is enabled, nothing runs"
    oarlock --version
    getent group oarlock
    [ -L /etc/systemd/system/multi-user.target.wants/oarlock.service ] || fail "not enabled"
    [ ! -e /run/agent.pid ] || fail "something was started"
    [ "$(stat -c '%a %U' /usr/sbin/oarlock)" = "755 root" ] || fail "the program's mode"
    ok
    step="the unit is accepted, the manual is there for each command, completions are read"
    # Without --man=no it would ask for the page of a program that is not in a minimal system.
    said=$(systemd-analyze verify --man=no /usr/lib/systemd/system/oarlock.service 2>&1) || fail "the unit: $said"
    [ -z "$said" ] || fail "the unit: $said"
    for page in oarlock oarlock-init oarlock-join oarlock-status; do
        zcat "/usr/share/man/man1/$page.1.gz" | grep -q '^.TH' || fail "$page.1"
    done
    bash -n /usr/share/bash-completion/completions/oarlock
    ok
}

# The agent runs a service; the newer package comes; the service has not noticed.
upgraded() {
    step="a cluster of one runs a service"
    make_cluster
    systemctl start oarlock.service
    await serves
    before=$(sleeper)
    [ -n "$before" ] || fail "no service runs"
    # The stand-in starts the agent with what the unit leaves of root's rights: 25 is CAP_SYS_TIME.
    left=$(sed -n 's/^CapBnd:[[:space:]]*//p' "/proc/$(cat /run/agent.pid)/status")
    [ $((0x$left >> 25 & 1)) -eq 0 ] || fail "the unit's limits of rights are not in force: $left"
    agent=$(cat /run/agent.pid)
    files=$(sums)
    : >$log
    ok
    step="upgraded: the agent is another one, its service the same process, nothing was told to stop"
    "$@" || fail "the upgrade: $*"
    await serves
    [ "$(sleeper)" = "$before" ] || fail "before: $before, now: $(sleeper)"
    [ "$(cat /run/agent.pid)" != "$agent" ] || fail "the old agent runs"
    grep -q '^ try-restart oarlock.service$' $log || fail "told: $(cat $log)"
    if grep -Eq '^ (stop|restart|start) ' $log; then fail "told: $(cat $log)"; fi
    [ "$(sums)" = "$files" ] || fail "keys or configuration changed"
    grep -q '^OARLOCK_LOG=debug$' "$settings" || fail "$settings was replaced"
    ok
    step="what the administrator stopped stays stopped in an upgrade, and its service ends"
    systemctl stop oarlock.service
    await gone
    "$@" || fail "the upgrade: $*"
    [ -z "$(sleeper)" ] || fail "it was started"
    systemctl start oarlock.service
    await serves
    ok
}

removed() {
    step="removed: the agent was told to stop, its service ends, keys and memory stay"
    : >$log
    "$@" || fail "the removal: $*"
    grep -q '^ stop oarlock.service$' $log || fail "told: $(cat $log)"
    await gone
    [ ! -e /usr/sbin/oarlock ] || fail "the program is there"
    [ -s /etc/oarlock/node.key ] || fail "the key has gone"
    [ -n "$(ls /var/lib/oarlock)" ] || fail "the memory has gone"
    ok
}
