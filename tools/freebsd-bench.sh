#!/bin/bash
# Runs benches/freebsd on a FreeBSD machine that ssh reaches, and brings its tables back: target/freebsd-bench.md.
#
#   FREEBSD_SSH='ssh -p 2222 -i key root@127.0.0.1' tools/freebsd-bench.sh
#
# FREEBSD_SSH, FREEBSD_DIR, FREEBSD_DISK and FREEBSD_KEEP mean what they mean for tools/freebsd-test.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/freebsd-machine.sh
. tools/freebsd-machine.sh

main() {
    local stage
    stage=$(mktemp -d)
    toolchain
    cp "$(cargo-zigbuild bench --bench freebsd --no-run --message-format=json --target "$target" |
        sed -n 's/^{"reason":"compiler-artifact".*"kind":\["bench"\].*"executable":"\([^"]*\)".*/\1/p')" "$stage/bench-freebsd"
    send "$stage"
    prepare
    there "cd '$dir' && env FAAS_JAILS_TEST_DATASET=$pool/tests ./bench-freebsd 2>&1" | tee target/freebsd-bench.md
}

main
exit
