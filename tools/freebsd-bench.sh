#!/bin/bash
# Runs benches/freebsd, and `wake` of benches/compare, on a FreeBSD machine that ssh reaches, and brings their tables back:
# target/freebsd-bench.md.
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
    cargo-zigbuild test --release --bench freebsd --bench compare --no-run --message-format=json --target "$target" |
        sed -n 's/^{"reason":"compiler-artifact".*"kind":\["bench"\].*"name":"\([a-z]*\)".*"executable":"\([^"]*\)".*/\1 \2/p' |
        while read -r name executable; do cp "$executable" "$stage/bench-$name"; done
    cp "target-freebsd/$target/release/faas-jails" "$stage/faas-jails"
    GOOS=freebsd GOARCH=amd64 CGO_ENABLED=0 go build -C benches/function -trimpath -ldflags='-s -w' -buildvcs=false \
        -o "$stage/function" .
    send "$stage"
    prepare
    there "cd '$dir' && export FAAS_JAILS_TEST_DATASET=$pool/tests FAAS_JAILS_TEST_PARTS='$dir' &&
        ./bench-freebsd 2>&1 && ./bench-compare wake 2>&1" | tee target/freebsd-bench.md
}

main
exit
