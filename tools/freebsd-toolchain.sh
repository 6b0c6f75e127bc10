#!/bin/bash
# Makes a toolchain on Debian 12 (amd64) that compiles and links this project for FreeBSD.
#
#   tools/freebsd-toolchain.sh [DIR]     default: ${XDG_CACHE_HOME:-~/.cache}/faas-jails/freebsd-toolchain
#   . DIR/env
#   cargo-zigbuild clippy|build|test --no-run --target x86_64-unknown-freebsd
#
# About a minute and a half, 250 MB of downloads, 1.5 GB on disk; a second run returns at once.
# Root is needed only where apt's lists are empty or a package named below is not installed.
set -euo pipefail

target=x86_64-unknown-freebsd
rust=1.96 llvm=22 zig=0.17.0 zigbuild=0.24.0
pins="rust=$rust zig=$zig zigbuild=$zigbuild recipe=1"

dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/faas-jails/freebsd-toolchain}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
complete() { [ "$(cat "$dir/stamp" 2>/dev/null)" = "$pins" ]; }
complete && exit 0
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "freebsd-toolchain: needs Debian on amd64, this is $(uname -sm)" >&2; exit 1; }

# Two runs at once would unpack over each other; the second waits, then finds the work done.
exec 9>"$dir/lock"
flock 9
complete && exit 0

log=$dir/log
: > "$log"
trap '[ $? = 0 ] || { echo "freebsd-toolchain: failed; the end of $log:"; tail -n 15 "$log"; } >&2' EXIT

# The stamp is written last, so what lies here without a matching one is half made: start over.
# (No build-aside-and-rename: a Python venv holds its own path.)
rm -rf "$dir/stamp" "$dir/env" "$dir/debs" "$dir/rust" "$dir/venv" "$dir/seed"
mkdir -p "$dir/debs" "$dir/rust"

# The lists are asked for only when apt does not know the compiler that is wanted.
apt-cache madison rustc-web 2>>"$log" | grep -q " $rust" || apt-get -qq update >>"$log" 2>&1

# What the steps below use and a plain Debian may lack: a linker for build scripts, Python with venv,
# and the shared libraries that cargo is linked to.
missing=()
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
for lib in libcurl4 libssh2-1 libsqlite3-0 libssl3; do
    dpkg-query -Wf '${Status}' $lib 2>/dev/null | grep -q ' installed' || missing+=("$lib")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "install these first: apt-get install ${missing[*]}" >>"$log"; exit 1; }
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends ca-certificates "${missing[@]}" >>"$log" 2>&1
fi

# Debian's Rust is the one whose source package lets std be built for a target that Debian lacks.
# It is unpacked, not installed: the packages conflict with rustup and with Debian's other rustc.
(cd "$dir/debs" && apt-get -qq download \
    {rustc-web,cargo-web,rust-web-src,rust-web-clippy,libstd-rust-web-dev}"=$rust.*" \
    "libstd-rust-web-$rust" "libllvm$llvm" libgit2-1.5 libhttp-parser2.9 libmbedcrypto7 libmbedtls14 libmbedx509-1 >>"$log" 2>&1)
for deb in "$dir"/debs/*.deb; do dpkg-deb -x "$deb" "$dir/rust"; done
rm -rf "$dir/debs"

# Zig is linker and C compiler for the target, with FreeBSD's headers and libc stubs inside.
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" -q install "ziglang==$zig" "cargo-zigbuild==$zigbuild" >>"$log" 2>&1

# Own CARGO_HOME and target directory: this cargo must neither read a rustup user's settings nor
# share build products with another compiler. RUSTC is set because PATH alone loses to a RUSTC set before.
cat > "$dir/env" <<ENV
export LD_LIBRARY_PATH="$dir/rust/usr/lib/x86_64-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export PATH="$dir/rust/usr/bin:$dir/venv/bin:\$PATH"
export RUSTC="$dir/rust/usr/bin/rustc" CARGO_HOME="$dir/cargo-home"
export CARGO_TARGET_DIR="\${CARGO_TARGET_DIR:-target-freebsd}"
unset RUSTUP_TOOLCHAIN
ENV
# shellcheck disable=SC1091
. "$dir/env"

# Debian ships no std for FreeBSD: build it once, by way of an empty program, and put it in the
# sysroot, so that later builds need neither -Z flags nor these minutes. RUSTC_BOOTSTRAP allows the
# flag on a stable compiler, here only.
mkdir -p "$dir/seed/src"
printf '[package]\nname = "seed"\nversion = "0.0.0"\nedition = "2024"\n' > "$dir/seed/Cargo.toml"
echo 'fn main() {}' > "$dir/seed/src/main.rs"
(cd "$dir/seed" && RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$dir/seed/target cargo-zigbuild zigbuild -q --release \
    -Z build-std=std,panic_abort,panic_unwind,test --target "$target" >>"$log" 2>&1)
sysroot=$dir/rust/usr/lib/rustlib/$target/lib
mkdir -p "$sysroot"
cp "$dir/seed/target/$target/release/deps/"*.rlib "$sysroot"
rm -rf "$dir/seed"

echo "$pins" > "$dir/stamp"
