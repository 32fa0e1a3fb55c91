#!/bin/sh
# Makes the first node of a cluster of three machines with a service and watchdogs; prints the token last.
set -eu
conf=/etc/oarlock/oarlock.toml
token=$(oarlock init --cluster vm --timing relaxed --address 10.77.1.100/24 \
    --node server1=10.77.1.11,10.77.2.11 --node server2=10.77.1.12,10.77.2.12 --witness frontend=10.77.1.21,10.77.2.21)
# Times that an emulated machine keeps and a test can wait for. The stop budget is the least with which a reset comes first.
sed -i 's|^timing *=.*|&\nheartbeat_ms = 600\nlease_ms = 8000\nelection_ms = 4000\nstop_budget_ms = 3819\nwatchdog = "/dev/watchdog"|' "$conf"
cat >>"$conf" <<'END'

  [[group.resource]]
  name = "mark"
  kind = "service"
  command = ["/bin/sh", "-c", "date +%s.%N >/run/mark; exec sleep infinity"]
END
# The machine is reset soon: what was not written would be zeros afterwards.
sync "$conf" "$(dirname "$conf")"
echo "$token"
