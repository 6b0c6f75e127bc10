#!/bin/bash
# Runs every test and ends with one line: N passed, N failed, N skipped.
#
#   tools/test.sh [ARGUMENT OF CARGO TEST]...
#
# A test that this machine cannot run prints a line with SKIPPED; libtest counts it as passed, this does not.
# The whole output is in target/test.log.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p target
log=target/test.log

status=0
# Tests wait for processes more than they compute, so a few more of them than processors.
RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 2))} \
    cargo test --no-fail-fast "$@" -- --show-output 2>&1 | tee "$log" |
    grep --line-buffered -E '^(test .* \.\.\. |running |test result|SKIPPED|error|warning: unused)|Compiling faas-jails|Running |Doc-tests' || true
status=${PIPESTATUS[0]}

sum() { sed -n "s/^test result: .* \([0-9]\+\) $1.*/\1/p" "$log" | awk '{ n += $1 } END { print n + 0 }'; }
passed=$(sum passed) failed=$(sum failed) ignored=$(sum ignored)
skipped=$(grep -c 'SKIPPED' "$log" || true)
if [ "$status" != 0 ]; then
    echo
    awk '/^failures:/ { show = 1 } /^test result/ { show = 0 } show || /^error/' "$log"
    # A suite that did not even start, or was killed, has no failures of its own to count.
    [ "$failed" -gt 0 ] || failed=1
fi
echo
echo "$((passed - skipped)) passed, $failed failed, $((skipped + ignored)) skipped"
exit "$status"
