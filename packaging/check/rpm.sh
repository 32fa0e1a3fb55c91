# An rpm, put into a Debian root by Debian's rpm tools: installed, upgraded, removed. That tool's list of
# packages knows nothing of Debian's, so that dependencies are not looked at.
. /packages/common.sh
settings=/etc/sysconfig/oarlock
act() { rpm --force-debian --nodeps "$@"; }

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
