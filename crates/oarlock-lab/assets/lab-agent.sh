#!/bin/sh
# Supervises the agent as a boot service would: restarted when it ends, until told to stop.
# Usage: lab-agent start|stop|status
pidfile=/run/lab-agent.pid
log=/var/log/oarlock.log
running() { [ -s "$pidfile" ] && kill -0 "$(cat "$pidfile")" 2>/dev/null; }
case ${1-} in
start)
    running && exit 0
    # The lock lets one of two that start at once through; -o keeps it from what the agent starts.
    setsid flock -n -o /run/lab-agent.lock "$0" supervise </dev/null >>"$log" 2>&1 &
    n=0
    until running; do
        n=$((n + 1))
        [ "$n" -le 100 ] || exit 1
        sleep 0.02
    done
    ;;
supervise)
    echo $$ >"$pidfile"
    # TERM reaches the agent first, then ends the supervision.
    trap 'stopping=1; [ -n "${agent-}" ] && kill "$agent"' TERM
    stopping=
    while [ -z "$stopping" ]; do
        /usr/sbin/oarlock agent &
        agent=$!
        wait "$agent"
        # A wait that TERM interrupted says nothing about the agent: wait for its real end.
        wait "$agent" 2>/dev/null
        [ -n "$stopping" ] || sleep 0.2
    done
    rm -f "$pidfile"
    ;;
stop)
    running || exit 0
    pid=$(cat "$pidfile")
    kill "$pid"
    n=0
    while kill -0 "$pid" 2>/dev/null; do
        n=$((n + 1))
        [ "$n" -le 300 ] || exit 1
        sleep 0.1
    done
    ;;
status)
    running
    ;;
*)
    echo "usage: lab-agent start|stop|status" >&2
    exit 2
    ;;
esac
