#!/bin/bash
# Compiles program, tests and Go functions for FreeBSD on Debian, with the lints that the Linux build has.
# It runs nothing: that takes a FreeBSD machine. The comparing benchmarks are left out: they read Linux's /proc.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${FREEBSD_TOOLCHAIN:-${XDG_CACHE_HOME:-$HOME/.cache}/faas-jails/freebsd-toolchain}
tools/freebsd-toolchain.sh "$dir"
(
    # shellcheck disable=SC1091
    . "$dir/env"
    cargo-zigbuild clippy --lib --bins --tests --bench freebsd --target x86_64-unknown-freebsd -- -D warnings
    cargo-zigbuild zigbuild --target x86_64-unknown-freebsd
)
for function in functions/hello tests/functions/probe; do
    GOOS=freebsd CGO_ENABLED=0 go build -C "$function" -o /dev/null .
done
echo "freebsd-check: compiled for x86_64-unknown-freebsd"
