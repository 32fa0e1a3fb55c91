# A deb on a clean machine: installed, upgraded, removed, installed again, purged.
. /packages/common.sh
settings=/etc/default/oarlock

step="dpkg installs it: all that it depends on is in a clean system"
dpkg --install /packages/old
ok
installed
echo OARLOCK_LOG=debug >>$settings
upgrade() { dpkg --install /packages/new; }
upgraded upgrade
removed dpkg --remove oarlock

step="installed again: what was left is used"
dpkg --install /packages/new
systemctl start oarlock.service
await serves
ok

step="purged without a terminal: keys and memory are out of the way, nothing is destroyed"
key=$(sha256sum </etc/oarlock/node.key)
dpkg --purge oarlock
await gone
[ ! -e /etc/oarlock ] && [ ! -e /var/lib/oarlock ] && [ ! -e $settings ] || fail "something is left"
kept=$(echo /var/backups/oarlock-*)
[ "$(stat -c '%a %U' "$kept")" = "700 root" ] || fail "$kept can be read by others"
[ "$(sha256sum <"$kept/etc/oarlock/node.key")" = "$key" ] || fail "the key is not in $kept"
[ -n "$(ls "$kept/var/lib/oarlock")" ] || fail "the memory is not in $kept"
[ -z "$(find /etc -name 'oarlock*' ! -name 'oarlock*-')" ] || fail "left: $(find /etc -name 'oarlock*')"
ok

step="purged on a terminal: asked; n keeps, y destroys"
for answer in n y; do
    rm -rf /var/backups/oarlock-*
    dpkg --install /packages/new
    make_cluster
    echo $answer | DEBIAN_FRONTEND=readline script --quiet --return --command 'dpkg --purge oarlock' /var/log/purge
    echo
    grep -q 'destroy the keys' /var/log/purge || fail "not asked: $(cat /var/log/purge)"
    [ ! -e /etc/oarlock ] || fail "/etc/oarlock is left"
    case $answer$(ls -d /var/backups/oarlock-* 2>/dev/null || true) in
    n/*) ;;
    y) ;;
    *) fail "after $answer: $(ls /var/backups)" ;;
    esac
done
ok

step="told to destroy: done without a question"
dpkg --install /packages/new
make_cluster
OARLOCK_PURGE=yes dpkg --purge oarlock
[ ! -e /etc/oarlock ] && [ ! -d /var/backups/oarlock-* ] || fail "something is left"
ok
