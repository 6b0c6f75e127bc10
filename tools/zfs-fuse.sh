#!/bin/bash
# The zfs-fuse of the tests. There is one per machine; who uses it, and when it ends, is for tools/with-pool.sh and
# tests/support/zpool.rs, which hold locks beside PIDFILE.
#
#   tools/zfs-fuse.sh start PIDFILE     starts it, with its listener mended (tools/zfs-fuse.c); abandons one that is there
#   tools/zfs-fuse.sh abandon PIDFILE   ends it though it hangs, with all that is mounted of the tests' pools
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# = 2 ] || { sed -n '5,6s/^# \{0,3\}//p' "$0" >&2; exit 2; }
pidfile=$2

start() {
    local dir
    dir=$(mktemp -d /tmp/faas-jails-zfs-fuse.XXXXXX)
    # It stays loaded when the file is gone.
    trap 'rm -rf "$dir"' RETURN
    cc -O2 -shared -fPIC -o "$dir/mended.so" "$here/zfs-fuse.c" -ldl
    LD_PRELOAD=$dir/mended.so zfs-fuse --no-kstat-mount -p "$pidfile"
}

mounted() { # the tests' mounts: number of the FUSE connection, directory
    awk '$(NF-2) ~ /^fuse/ && $(NF-1) ~ /^fjt/ { sub(/^0:/, "", $3); print $3, $5 }' /proc/self/mountinfo
}

abandon() {
    [ -e "$pidfile" ] || return 0
    local connections=/sys/fs/fuse/connections number directory mine='' pid
    if ! mountpoint -q $connections; then mount -t fusectl none $connections && mine=1; fi
    # First, so that nobody waits for it any more, in the kernel neither.
    mounted | while read -r number directory; do echo 1 > "$connections/$number/abort" || true; done
    [ -z "$mine" ] || umount $connections
    pid=$(cat "$pidfile" 2> /dev/null || true)
    if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2> /dev/null)" = zfs-fuse ]; then
        kill -9 "$pid"
        for _ in $(seq 100); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
    fi
    # Innermost first.
    mounted | tac | while read -r number directory; do umount -l "$directory" || true; done
    rm -f "$pidfile"
}

case $1 in
    start) abandon; start ;;
    abandon) abandon ;;
    *) echo "zfs-fuse: start or abandon?" >&2; exit 2 ;;
esac
