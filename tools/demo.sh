#!/bin/bash
# Shows the whole way on this machine: builds the program, starts it, makes an image, loads it, deploys the
# function of stack.yml, calls it. Then it stays up until Ctrl-C; with ONCE=1 it ends by itself. Nothing stays.
#
#   tools/demo.sh          as root
#
# FAAS_JAILS names a program that is built already; REALM, SUBNET and PORT (8080) let it run beside others.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "demo: run as root: it makes namespaces, mounts and an interface, and removes them at the end" >&2; exit 1; }

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
run() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }

program=${FAAS_JAILS:-$PWD/target/release/faas-jails}
if [ -z "${FAAS_JAILS:-}" ]; then
    say "building"
    cargo build --release
fi
work=$(mktemp -d)
daemon=''
finish() {
    code=$?
    trap - EXIT
    say "tearing down"
    if [ -n "$daemon" ]; then kill "$daemon" 2>/dev/null || true; wait "$daemon" || code=$?; fi
    "$program" --config "$work/config.toml" purge --all || code=$?
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 0' INT TERM

# The gateway's usual port, so that what people know by heart works; the provider's takes a free one. Which they
# are, the daemon writes into files of its root directory. PORT=0 takes a free one here too.
cat > "$work/config.toml" <<TOML
root = "$work/state"
realm = "${REALM:-demo}"
listen = "127.0.0.1:0"
[gateway]
listen = "127.0.0.1:${PORT:-8080}"
[network]
subnet = "${SUBNET:-10.62.250.0/24}"
nat = false
TOML

say "starting the daemon"
"$program" --config "$work/config.toml" serve --stop-functions 2> "$work/log" &
daemon=$!
for _ in $(seq 200); do
    [ ! -s "$work/state/address" ] || break
    kill -0 "$daemon" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.05
done
url=http://$(cat "$work/state/gateway.address")
echo "listening on $url"

say "making the function's image and loading it"
mkdir -p "$work/hello/tmp"
CGO_ENABLED=0 go build -C functions/hello -trimpath -buildvcs=false -ldflags='-s -w' -o "$work/hello/hello" .
run tools/mkimage.sh faas-jails/hello:1 "$work/hello.tar" "$work/hello" /hello
run "$program" --config "$work/config.toml" image load "$work/hello.tar"

say "deploying it"
cli=$(command -v faas-cli || true)
[ -n "$cli" ] || cli=$(readlink -e target/stock/faas-cli || true)
# Not here: in a directory with a stack.yml it takes the functions from that file.
faas() { printf '\033[2m$ faas-cli %s\033[0m\n' "$*"; (cd "$work" && HOME=$work "$cli" "$@"); }
if [ -n "$cli" ]; then
    faas deploy --gateway "$url" --image faas-jails/hello:1 --name hello --readonly
    faas list --gateway "$url"
else
    echo "faas-cli is not installed here; this is what it sends:"
    run curl -fsS "$url/system/functions" -H 'Content-Type: application/json' \
        -d '{"service":"hello","image":"faas-jails/hello:1","readOnlyRootFilesystem":true}' -w '%{http_code}\n'
    run curl -fsS "$url/system/functions"
    echo
fi

say "calling it"
answer=$(run curl -fsS "$url/function/hello" -d FreeBSD)
echo "$answer"
[[ $answer == *"Hello, FreeBSD!"* ]] || { echo "demo: that is not the answer" >&2; exit 1; }

say "its log"
run curl -fsS "$url/system/logs?name=hello&follow=false"

[ -z "${ONCE:-}" ] || exit 0
say "it stays up: try  curl $url/function/hello -d YOU  — Ctrl-C ends it and removes everything"
wait "$daemon"
