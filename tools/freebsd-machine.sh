# The FreeBSD machine that tests and benchmarks run on: read by freebsd-test.sh and freebsd-bench.sh, whose heads say
# what the variables mean.
: "${FREEBSD_SSH:?is not set: see the head of tools/freebsd-test.sh}"
dir=${FREEBSD_DIR:-/var/tmp/faas-jails-test}
target=x86_64-unknown-freebsd
pool=fjtest$$
mkdir -p target

there() { # there COMMAND...: runs it on the machine
    # shellcheck disable=SC2086
    $FREEBSD_SSH "$*" < /dev/null
}

toolchain() { # puts the cross compiler on PATH
    local toolchain=${FREEBSD_TOOLCHAIN:-${XDG_CACHE_HOME:-$HOME/.cache}/faas-jails/freebsd-toolchain}
    tools/freebsd-toolchain.sh "$toolchain" >&2
    # shellcheck disable=SC1091
    . "$toolchain/env"
}

send() { # send DIRECTORY: puts what is in it there; debugging information is most of the bytes, and is left out
    "${STRIP:-strip}" --strip-debug "$1"/faas-jails "$1"/test-* "$1"/bench-* 2> /dev/null || true
    there "rm -rf '$dir'; mkdir -p '$dir'"
    # shellcheck disable=SC2086
    tar -C "$1" -czf - . | $FREEBSD_SSH "tar -C '$dir' -xzf -"
    rm -rf "$1"
}

prepare() { # modules and a pool; what they leave goes with `clean`
    local device=${FREEBSD_DISK:-$dir/pool.img}
    trap clean EXIT
    there "for m in zfs pf if_bridge if_epair nullfs fdescfs tmpfs; do kldload -n \$m || exit 1; done
        for m in linux64 linprocfs linsysfs; do kldload -n \$m || echo 'Linux images cannot be tried' >&2; done
        [ -n '${FREEBSD_DISK:-}' ] || truncate -s 6g '$device'
        zpool create -f -O mountpoint=none -O compression=lz4 $pool '$device' && zfs create $pool/tests &&
            zfs create -o mountpoint='$dir/disk' $pool/disk"
}

clean() {
    [ -z "${FREEBSD_KEEP:-}" ] || return 0
    there "zpool destroy -f $pool; rm -rf '$dir'" || true
}
