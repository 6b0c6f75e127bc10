#!/bin/bash
# Runs every test, then the acceptance suite once more with every image and root on ZFS (zfs-fuse where ZFS is not in the
# kernel), and ends with one line: N passed, N failed, N skipped, of both together.
#
#   tools/test.sh [ARGUMENT OF CARGO TEST]...
#
# With arguments only those tests run, once, on the storage that the system has. A test that this machine cannot run
# prints a line with SKIPPED; libtest counts it as passed, this does not. The output is in target/test.log and
# target/test-zfs.log. What does not end is killed after two hours, on ZFS after half of one, and has failed.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p target

# Left out on ZFS: what brings its own storage whatever the run (pools, small file systems, the demo), and what is about
# settings, refused requests and the page, where no image and no root decides anything.
off_zfs=(on_zfs:: ship:: full_disk:: shipped:: settings:: bad_input:: page::)
passed=0 failed=0 skipped=0 status=0

run() { # run LOG COMMAND...
    local log=$1 rc=0 p f s
    shift
    # Tests wait for processes more than they compute, so a few more of them than processors.
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 2))} "$@" 2>&1 | tee "$log" |
        { grep --line-buffered -E '^(test .* \.\.\. |running |test result|SKIPPED|error|warning: unused)|Compiling faas-jails|Running |Doc-tests' || true; } ||
        rc=$?
    sum() { sed -n "s/^test result: .* \([0-9]\+\) $1.*/\1/p" "$log" | awk '{ n += $1 } END { print n + 0 }'; }
    f=$(sum failed) s=$(grep -c 'SKIPPED' "$log" || true)
    p=$(($(sum passed) - s))
    if [ "$rc" != 0 ]; then
        echo
        awk '/^failures:/ { show = 1 } /^test result/ { show = 0 } show || /^error/' "$log"
        # A suite that did not even start, or was killed, has no failures of its own to count.
        [ "$f" -gt 0 ] || f=1
        status=1
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s + $(sum ignored)))
}

run target/test.log tools/within.sh 7200 cargo test --no-fail-fast "$@" -- --show-output
if [ $# = 0 ] && [ "$(uname -s)" = Linux ]; then
    echo
    echo "$passed passed, $failed failed, $skipped skipped on this system's own storage; the suite again, on ZFS:"
    if [ "$(id -u)" = 0 ] && command -v zpool > /dev/null && { [ -e /dev/zfs ] || [ -e /dev/fuse ]; }; then
        run target/test-zfs.log tools/with-pool.sh tools/within.sh 1800 \
            cargo test --test suite -- --show-output "${off_zfs[@]/#/--skip=}"
    else
        echo "SKIPPED: the suite on ZFS: needs root, zpool, and ZFS in the kernel or /dev/fuse"
        skipped=$((skipped + 1))
    fi
fi
echo
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
