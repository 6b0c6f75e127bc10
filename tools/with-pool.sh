#!/bin/bash
# Runs a command with FAAS_JAILS_TEST_DATASET naming a dataset on a throw-away ZFS pool: the acceptance tests then
# keep every image and every root there.
#
#   tools/with-pool.sh COMMAND [ARGUMENT]...
#
# Where ZFS is not in the kernel, this starts zfs-fuse, or joins one that another test run has started: there is one
# per machine, its users hold a lock, and the last one ends it (the same as tests/support/zpool.rs).
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }

cd "$(dirname "$0")/.."
state=/run/lock/faas-jails-test-zfs-fuse
dir=$(mktemp -d /tmp/faas-jails-pool.XXXXXX)
pool=fjt$$x$RANDOM
fuse='' made=''

answers() { timeout -k 1 20 zpool list -H > /dev/null 2>&1; }
fuse_pid() { # the zfs-fuse that a test run has started, if it lives
    local pid
    pid=$(cat $state.pid 2> /dev/null) && [ "$(cat "/proc/$pid/comm" 2> /dev/null)" = zfs-fuse ] && echo "$pid"
}
destroy() { timeout -k 1 60 zpool destroy "$pool" || timeout -k 1 60 zpool destroy -f "$pool"; }
clean() {
    if [ -n "$made" ] && ! destroy; then
        if [ -n "$fuse" ]; then
            echo "error: zfs-fuse does not give up pool $pool: it is killed" >&2
            tools/zfs-fuse.sh abandon $state.pid
        fi
        failed=1
    fi
    rm -rf "$dir"
    [ -n "$fuse" ] || return 0
    exec 9> $state.start
    flock 9
    # Nobody else has the lock: this was the last user.
    if flock -n 8 && pid=$(fuse_pid); then
        kill "$pid"
        for _ in $(seq 100); do fuse_pid > /dev/null || break; sleep 0.1; done
        rm -f $state.pid
    fi
}
ended() { # what the command said, unless the pool could not be destroyed
    local status=$? failed=''
    clean
    exit $((status > 0 ? status : ${failed:-0}))
}
trap ended EXIT

if [ ! -e /dev/zfs ]; then
    [ -e /dev/fuse ] || { echo "with-pool: needs ZFS in the kernel, or /dev/fuse for zfs-fuse" >&2; exit 1; }
    exec 9> $state.start
    flock 9
    exec 8> $state.users
    flock -s 8
    fuse=1
    if ! answers; then
        tools/zfs-fuse.sh start $state.pid 8>&- 9>&-
        for _ in $(seq 100); do if answers; then break; fi; sleep 0.1; done
        answers || { echo "with-pool: zfs-fuse does not answer" >&2; exit 1; }
    fi
    exec 9>&-
fi
truncate -s 8g "$dir/vdev"
zpool create -o cachefile=none -m none "$pool" "$dir/vdev"
made=1
zfs create -o canmount=off "$pool/tests"
FAAS_JAILS_TEST_DATASET=$pool/tests "$@" 8>&-
