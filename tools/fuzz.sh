#!/bin/bash
# Fuzzes what reads images and calls, a minute for each target, and says how many inputs were tried.
#
#   tools/fuzz.sh [SECONDS] [TARGET]...
#
# Installs cargo-fuzz below target/ if it is not there. A finding ends the target with its input in
# fuzz/artifacts; the other targets still run, and this fails.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=60
case ${1:-} in [0-9]*) seconds=$1; shift ;; esac
targets=("$@")
[ $# -gt 0 ] || targets=(reference manifest image_config layer unpack call)

PATH=$PATH:$PWD/target/fuzz-tool/bin
command -v cargo-fuzz > /dev/null || cargo install --quiet --locked --root target/fuzz-tool cargo-fuzz
# The compiler's coverage flags are for its nightly version, unless it is told otherwise. What is fuzzed has no
# unsafe code of its own, so the sanitizers, which not every distribution's compiler has, are left out.
export RUSTC_BOOTSTRAP=1
fuzz() { # fuzz VERB TARGET [ARGUMENT]...
    cargo fuzz "$1" --sanitizer none --target "$(rustc -vV | sed -n 's/^host: //p')" "${@:2}"
}

seed() { # a layer or two for the targets that read tars
    local tree
    tree=$(mktemp -d)
    mkdir -p fuzz/corpus/layer "$tree/a/b"
    echo text > "$tree/a/file"
    ln "$tree/a/file" "$tree/a/hard"
    ln -s ../a "$tree/a/b/link"
    truncate -s 64K "$tree/a/sparse"
    touch "$tree/a/.wh.gone" "$tree/a/b/.wh..wh..opq"
    for format in "gnu --sparse" "pax --sparse" ustar; do
        # shellcheck disable=SC2086
        tar -C "$tree" --format=$format -cf "fuzz/corpus/layer/${format%% *}.tar" .
    done
    gzip -c fuzz/corpus/layer/pax.tar > fuzz/corpus/layer/pax.tar.gz
    rm -rf "$tree"
}

seed
status=0
for target in "${targets[@]}"; do
    log=target/fuzz-$target.log
    if fuzz run "$target" -- -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        > "$log" 2>&1; then
        echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in $seconds s, no finding"
    else
        echo "$target: FAILED, see $log"
        tail -n 30 "$log"
        status=1
    fi
done
exit $status
