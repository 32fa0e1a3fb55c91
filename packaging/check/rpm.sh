# An rpm, put into a Debian root by Debian's rpm tools: installed, upgraded, removed. That tool's list of
# packages knows nothing of Debian's, so that dependencies are not looked at.
. /packages/common.sh
settings=/etc/sysconfig/oarlock
# Debian 12's asks to be told that this is meant.
meant=--force-debian
rpm $meant --version >/dev/null 2>&1 || meant=
act() { rpm $meant --nodeps "$@"; }

step="rpm installs it"
rpm --initdb
act --install /packages/old
ok
installed
echo OARLOCK_LOG=debug >>$settings
upgrade() { act --upgrade --force /packages/new; }
upgraded upgrade
removed act --erase oarlock

step="removed: not enabled any more; an edited file of settings is kept"
[ ! -L /etc/systemd/system/multi-user.target.wants/oarlock.service ] || fail "still enabled"
[ -e $settings.rpmsave ] || fail "no $settings.rpmsave"
ok
