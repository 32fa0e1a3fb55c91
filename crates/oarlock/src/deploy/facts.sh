# What a machine is and has, for the planner. Changes nothing. One fact a line: "name value…"; a file is
# "file MODE OWNER GROUP PATH", then its content in base64 in one word.
LC_ALL=C
export LC_ALL
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
fact() { printf '%s\n' "$*"; }
file() {
    [ -f "$1" ] || return 0
    fact file "$(stat -Lc '%a %U %G' "$1") $1 $(base64 -w0 <"$1")"
}
# Processes that oarlock started: in its control groups, or with its mark in their environment or in that of
# who leads their session (a program that gives itself a title writes over its own).
ours() {
    if grep -q ':/oarlock/' "/proc/$1/cgroup" 2>/dev/null; then return 0; fi
    for process in "$1" $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f4); do
        if tr '\0' '\n' <"/proc/$process/environ" 2>/dev/null | grep -q '^OARLOCK_SERVICE='; then return 0; fi
    done
    return 1
}

fact uid "$(id -u)"
fact host "$(cat /proc/sys/kernel/hostname)"
if [ -d /run/systemd/system ]; then fact systemd yes; fi
if command -v apt-get >/dev/null; then fact apt yes; fi
version=$(oarlock --version 2>/dev/null) && fact oarlock "${version#oarlock }"
ip -o addr show scope global 2>/dev/null | while read -r _ _ _ address _; do fact address "$address"; done
file /etc/oarlock/oarlock.toml
if [ -e /etc/oarlock/node.key ]; then fact joined yes; fi
file /etc/hosts
file /etc/default/oar-node

for postgres in /usr/lib/postgresql/*/bin/postgres; do
    [ -x "$postgres" ] || continue
    version=${postgres#/usr/lib/postgresql/}
    fact postgresql "${version%%/*}"
done
for conf in /etc/postgresql/*/*/postgresql.conf; do
    [ -f "$conf" ] || continue
    dir=${conf%/postgresql.conf}
    name=${dir##*/}
    version=${dir%/*}
    version=${version##*/}
    data=$(sed -n "s/^[[:space:]]*data_directory[[:space:]]*=*[[:space:]]*'\([^']*\)'.*/\1/p" "$conf" | tail -n1)
    port=$(sed -n 's/^[[:space:]]*port[[:space:]]*=*[[:space:]]*\([0-9]*\).*/\1/p' "$conf" | tail -n1)
    [ -n "$data" ] || continue
    state=down
    pid=$(head -n1 "$data/postmaster.pid" 2>/dev/null)
    if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$(readlink -f "$data")" ]; then
        state=running
        if ours "$pid"; then state=ours; fi
    fi
    kib=absent
    if [ -d "$data" ]; then kib=$(du -sk "$data" | cut -f1); fi
    free=$(df -Pk "$(dirname "$data")" 2>/dev/null | awk 'NR == 2 { print $4 }')
    mine=no
    if [ -e "$data/oarlock-copy-id" ]; then mine=yes; fi
    fact cluster "$version $name ${port:-5432} $state $mine $kib ${free:-0} $data"
    if [ "$state" = running ]; then
        owned=$(cd / && setpriv --reuid postgres --regid postgres --init-groups psql -XAtq -p "${port:-5432}" -d postgres -c \
            "select count(*) from pg_database where datname not in ('postgres', 'template0', 'template1')" 2>/dev/null)
        fact databases "$version $name ${owned:-unknown}"
    fi
    for each in "$dir"/*.conf "$dir"/environment "$dir"/conf.d/*.conf; do file "$each"; done
done

if [ -x /usr/sbin/Almighty ]; then fact oar-server yes; fi
file /etc/oar/oar.conf
if [ -d /var/lib/oar/.ssh ]; then
    for each in /var/lib/oar/.ssh/*; do file "$each"; done
fi
for status in /proc/[0-9]*/status; do
    pid=${status#/proc/}
    pid=${pid%/status}
    case "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)" in
    *perl*/Almighty* | Almighty:*) if ours "$pid"; then fact almighty ours; else fact almighty running; fi ;;
    esac
done
for start in /etc/rc[2345].d/S*oar-server; do
    if [ -e "$start" ]; then fact oar-boot yes; fi
done
if [ "$(readlink /etc/systemd/system/oar-server.service)" = /dev/null ]; then fact oar-masked yes; fi
fact end
