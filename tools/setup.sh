#!/bin/bash
# Installs what `make demo` and `make test` need and this machine lacks. Debian 12 as root; FreeBSD by pkg.
#
#   tools/setup.sh [bench] [observe]
#     bench     also nginx, haproxy, wrk, umoci and skopeo, which the benchmarks compare with or use
#     observe   also what tests check the files under deploy/ with: Prometheus, logrotate, Python
#
# Installs only what is missing, and runs apt-get update only if something is. No service that this
# installs is started, now or at boot: tests and demo start their own, on loopback.
set -euo pipefail

bench='' observe=''
for arg in "$@"; do
    case $arg in
        bench) bench=1 ;;
        observe) observe=1 ;;
        *) echo "usage: tools/setup.sh [bench] [observe]" >&2; exit 2 ;;
    esac
done
[ "$(id -u)" = 0 ] || { echo "setup: run as root" >&2; exit 1; }

if [ "$(uname -s)" = FreeBSD ]; then # not tested by this project's CI
    pkg install -y rust go git gmake pkgconf ${bench:+nginx haproxy wrk} ${observe:+prometheus}
    exit
fi
if ! grep -qx 'VERSION_CODENAME=bookworm' /etc/os-release; then
    echo "setup: written for Debian 12; on another system install the packages named in $0 by hand" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
packages=()
want() { # want FILE-OR-COMMAND PACKAGE: the package, unless what it brings is there
    command -v "$1" >/dev/null || [ -e "$1" ] || packages+=("$2")
}
# at_least MINIMUM FOUND: version order; an empty FOUND is older than anything
at_least() { [ -n "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

PATH=$PATH:/usr/sbin:/sbin
want cc gcc
want /usr/include/stdio.h libc6-dev
want make make
want pkg-config pkg-config
want git git
want curl curl
want /etc/ssl/certs/ca-certificates.crt ca-certificates
want ip iproute2
want nft nftables
want docker-registry docker-registry
want zpool zfs-fuse # not where real ZFS is installed
want chromium chromium
want chromedriver chromium-driver
# A busybox linked to nothing runs in any root file system; ldd succeeds on the other kind.
if ! command -v busybox >/dev/null || ldd "$(command -v busybox)" >/dev/null 2>&1; then packages+=(busybox-static); fi
[ -z "$bench" ] || { want nginx nginx-light; want haproxy haproxy; want wrk wrk; want umoci umoci; want skopeo skopeo; }
[ -z "$observe" ] || { want prometheus prometheus; want logrotate logrotate; python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv); }

# Rust: Debian 12's own rustc is too old, the browsers' (rustc-web) is not. It conflicts with rustup,
# so a machine that has rustup keeps it, and is told how to bring it up to date.
here=$(cd "$(dirname "$0")/.." && pwd)
rust_min=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$here/Cargo.toml" 2>/dev/null || true)
rust_min=${rust_min:-1.85}
if ! at_least "$rust_min" "$(cargo --version 2>/dev/null | awk '{print $2}')"; then
    if command -v rustup >/dev/null; then
        echo "setup: cargo is missing or older than $rust_min: run 'rustup update stable', then this again" >&2
        exit 1
    fi
    packages+=(rustc-web cargo-web rust-web-clippy rustfmt-web)
fi

# Go: Debian 12's own is 1.19; backports has 1.23.
go_min=1.23 backports=''
at_least "$go_min" "$(go version 2>/dev/null | awk '{sub("go", "", $3); print $3}')" || backports=golang-go

[ ${#packages[@]} -gt 0 ] || [ -n "$backports" ] || exit 0

# A policy-rc.d that answers 101 keeps the packages' scripts from starting their services.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
fi

if [ -n "$backports" ]; then
    # The machine's own mirror, whichever it is. Backports never replace a package unasked.
    # shellcheck disable=SC2016 # apt fills in $(...), not the shell
    if ! apt-get indextargets --format '$(RELEASE)' | grep -qx bookworm-backports; then
        # shellcheck disable=SC2016
        mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' | awk '$1 == "bookworm" { print $2; exit }')
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm-backports main" \
            > /etc/apt/sources.list.d/faas-jails-backports.list
    fi
fi

apt-get -qq update
install=(apt-get -qq install -y --no-install-recommends)
[ ${#packages[@]} -eq 0 ] || "${install[@]}" "${packages[@]}"
[ -z "$backports" ] || "${install[@]}" -t bookworm-backports "$backports"

# policy-rc.d covers today; this covers the next boot.
for service in docker-registry zfs-fuse nginx haproxy prometheus; do
    case " ${packages[*]} " in *" $service"*) ;; *) continue ;; esac
    if command -v systemctl >/dev/null; then
        systemctl -q disable "$service" 2>/dev/null || true
    elif [ -e "/etc/init.d/$service" ]; then
        update-rc.d "$service" disable
    fi
done
