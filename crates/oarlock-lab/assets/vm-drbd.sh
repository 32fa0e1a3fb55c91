#!/bin/sh
# The resource r0 on /dev/vdd of server1 and server2, written and brought up by hand.
set -eu
cat >/etc/drbd.d/r0.res <<'END'
resource r0 {
    protocol C;
    device /dev/drbd0;
    disk /dev/vdd;
    meta-disk internal;
    # A dead peer is noticed within seconds; a small log of what may differ keeps the resync short.
    net { ping-int 1; ping-timeout 10; timeout 10; connect-int 1; cram-hmac-alg sha256; shared-secret lab; }
    disk { c-plan-ahead 0; resync-rate 40M; al-extents 7; }
    on server1 { address 10.77.2.11:7789; }
    on server2 { address 10.77.2.12:7789; }
}
END
case $1 in
create) drbdadm create-md --force r0 && drbdadm up r0 ;;
up) drbdadm up r0 ;;
esac
