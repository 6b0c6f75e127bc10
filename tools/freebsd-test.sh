#!/bin/bash
# Runs the tests on a FreeBSD machine that ssh reaches, and brings a report back: target/freebsd-report.txt.
#
#   FREEBSD_SSH='ssh -p 2222 -i key root@127.0.0.1' tools/freebsd-test.sh [TEST-BINARY[=FILTER]]...
#
#   FREEBSD_SSH     the command that runs its last argument on the machine, as root; it may be a throw-away VM
#   FREEBSD_DIR     directory there, made and removed again      [/var/tmp/faas-jails-test]
#   FREEBSD_DISK    a device there that may be overwritten; the pool for the tests is made on it, otherwise
#                   on a file in FREEBSD_DIR
#   FREEBSD_STOCK   directory here with faas-cli and docker-registry built for FreeBSD; without the first its
#                   tests are skipped, without the second those with a registry fail unless PATH there has it
#   FREEBSD_GO      a Go tree here that runs there; without it, and without a go in PATH there, what builds is skipped
#   FREEBSD_THREADS tests at once                                [2]
#   FREEBSD_KEEP=1  leaves directory and pool there, to look at
#   FAAS_JAILS_TEST_* are handed over: with FAAS_JAILS_TEST_PF=1, tests that replace the machine's pf rules run, too
#
# Without arguments every test binary runs: the library's own tests, freebsd_platform, zfs, image, suite.
# The machine needs no compiler and no package, but Go for what builds functions; program and tests are cross-compiled here (freebsd-toolchain.sh).
# Everything that the kernel shows (jails, dying ones too, mounts, datasets, interfaces, rules, files) is counted
# before and after; more afterwards than before fails the run.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/freebsd-machine.sh
. tools/freebsd-machine.sh
threads=${FREEBSD_THREADS:-2}
report=target/freebsd-report.txt

build() { # prints NAME EXECUTABLE of each test binary
    toolchain
    cargo-zigbuild test --no-run --message-format=json --target "$target" ${only[@]+"${only[@]}"} |
        sed -n 's/^{"reason":"compiler-artifact".*"name":"\([a-z_-]*\)","src_path".*"test":true},"features".*"executable":"\([^"]*\)".*/\1 \2/p'
}

# What the kernel shows, one counted thing a line.
census='
count() { printf "%s %s\n" "$1" "$(eval "$2" 2>/dev/null | wc -l | tr -d " ")"; }
count jails "jls -n jid"
count jails-with-dying-ones "jls -d -n jid"
count processes "ps -axo pid= | tail +1"
count mounts "mount -p"
count datasets "zfs list -H -t all -o name"
count interfaces "ifconfig -l | tr \" \" \"\n\""
count addresses "ifconfig -a | grep inet"
count pf-anchors "pfctl -q -v -s Anchors"
count pf-tables "pfctl -q -a faas-jails -s Tables"
count rctl-rules "rctl"
count open-files "fstat"
count temporary-files "find /tmp /var/tmp -mindepth 1 -maxdepth 1"
'

gather() { # gather NAME EXECUTABLE...: program, tests and parts in one directory, which it prints
    local stage
    stage=$(mktemp -d)
    mkdir -p "$stage/stock" "$stage/tests/functions"
    cp "target-freebsd/$target/debug/faas-jails" "$stage/faas-jails"
    cp -r deploy templates functions stack.yml "$stage"
    cp -r tests/functions/called "$stage/tests/functions"
    # A stripped-down system has no certificates to put into images.
    cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$stage/certificates.pem"
    while [ $# -gt 0 ]; do cp "$2" "$stage/test-$1"; shift 2; done
    GOOS=freebsd GOARCH=amd64 CGO_ENABLED=0 go build -C tests/functions/probe -trimpath -ldflags='-s -w' \
        -buildvcs=false -o "$stage/probe" . >&2
    [ -z "${FREEBSD_GO:-}" ] || cp -r "$FREEBSD_GO" "$stage/go"
    [ -z "${FREEBSD_STOCK:-}" ] || cp "$FREEBSD_STOCK"/* "$stage/stock/"
    echo "$stage"
}

run() { # run NAME [FILTER]: one test binary
    local wishes=''
    [ -z "${!FAAS_JAILS_TEST_@}" ] || wishes=$(declare -p "${!FAAS_JAILS_TEST_@}" | sed "s/^declare -[^ ]* //" | tr '\n' ' ')
    there "cd '$dir' && env PATH=\"\$PATH:$dir/go/bin\" $wishes FAAS_JAILS_TEST_DATASET=$pool/tests FAAS_JAILS_TEST_PARTS='$dir' \
        SSL_CERT_FILE='$dir/certificates.pem' \
        $([ "$1" != lib ] || echo "TMPDIR='$dir/disk'") RUST_BACKTRACE=0 ./test-$1 --test-threads=$([ "$1" = suite ] && echo "$threads" || echo 1) --show-output ${2:-} 2>&1"
}

main() {
    only=() filters=()
    for argument in "$@"; do
        name=${argument%%=*}
        filters+=("$argument")
        case $name in
            lib) only+=(--lib) ;;
            *) only+=(--test "$name") ;;
        esac
    done
    [ ${#only[@]} = 0 ] || only+=(--bin faas-jails)

    mapfile -t binaries < <(build)
    arguments=()
    for line in "${binaries[@]}"; do
        name=${line%% *}
        case $name in
            faas-jails) continue ;;
            faas_jails) name=lib ;;
        esac
        arguments+=("$name" "${line#* }")
    done
    [ ${#arguments[@]} -gt 0 ] || { echo "freebsd-test: no test binary was built" >&2; exit 1; }

    send "$(gather "${arguments[@]}")"
    prepare
    before=$(there "$census")
    {
        echo "date     $(date -u '+%Y-%m-%d %H:%M UTC')"
        echo "commit   $(git rev-parse --short HEAD)$(git diff --quiet HEAD || echo ' and changes')"
        echo "kernel   $(there 'uname -rsvm')"
        echo "machine  $(there 'sysctl -n hw.model hw.ncpu hw.physmem' | tr '\n' ' ')"
    } > "$report"
    : > target/freebsd-test.log
    status=0 passed=0 failed=0 skipped=0
    for ((i = 0; i < ${#arguments[@]}; i += 2)); do
        name=${arguments[i]} filter=''
        for wanted in ${filters[@]+"${filters[@]}"}; do
            [ "$wanted" = "${wanted#"$name"=}" ] || filter=${wanted#*=}
        done
        log=target/freebsd-$name.log
        run "$name" "$filter" | tee "$log" | grep --line-buffered -E '^(test .* \.\.\. |running |test result|SKIPPED)' || true
        cat "$log" >> target/freebsd-test.log
        count() { sed -n "s/^test result: .* \([0-9][0-9]*\) $1.*/\1/p" "$log" | awk '{ n += $1 } END { print n + 0 }'; }
        s=$(grep -c SKIPPED "$log" || true) p=$(count passed) f=$(count failed)
        # A binary that did not come to its end has a failure.
        grep -q '^test result' "$log" || f=$((f + 1))
        [ "$f" = 0 ] || status=1
        echo "$name: $((p - s)) passed, $f failed, $s skipped" >> "$report"
        grep -E '^test .* FAILED' "$log" | sed 's/^/  /' >> "$report" || true
        passed=$((passed + p - s)) failed=$((failed + f)) skipped=$((skipped + s))
    done
    # What the kernel does afterwards, such as letting go of dying jails, has a while.
    for _ in $(seq 30); do
        after=$(there "$census")
        more=$(join <(sort <<< "$before") <(sort <<< "$after") |
            awk '$1 !~ /^(processes|open-files)$/ && $3 > $2 { print "  " $1 ": " $2 " before, " $3 " after" }')
        [ -n "$more" ] || break
        sleep 2
    done
    {
        echo
        echo "counted before / after"
        join <(sort <<< "$before") <(sort <<< "$after") | awk '{ printf "  %-24s %6d %6d\n", $1, $2, $3 }'
        if [ -n "$more" ]; then echo "left behind:"; echo "$more"; fi
        echo
        echo "$passed passed, $failed failed, $skipped skipped"
    } >> "$report"
    [ -z "$more" ] || status=1
    cat "$report"
    exit "$status"
}

# Read to its end before it runs, so that it may be changed meanwhile.
main "$@"
exit
