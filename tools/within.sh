#!/bin/bash
# Runs a command that must end within a time. If it does not, it is killed with all of its process group, and this
# fails with 124, as timeout(1) would; other than there, Ctrl-C ends the command.
#
#   tools/within.sh SECONDS COMMAND [ARGUMENT]...
set -euo pipefail
[ $# -gt 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
seconds=$1
shift

watch() {
    sleep "$seconds"
    kill -- -$command
    sleep 20
    kill -9 -- -$command
}
# Each of the two gets a process group of its own.
set -m
SECONDS=0
"$@" &
command=$!
watch > /dev/null 2>&1 &
watch=$!
trap 'kill -- -$command 2> /dev/null || true' INT TERM
status=0
wait $command || status=$?
# A signal that was passed on ends the wait before the command.
while kill -0 $command 2> /dev/null; do status=130; wait $command || true; done
kill -- -$watch 2> /dev/null || true
if [ $SECONDS -ge "$seconds" ]; then
    echo "error: killed after $seconds seconds: $*" >&2
    exit 124
fi
exit $status
