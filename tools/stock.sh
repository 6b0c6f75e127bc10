#!/bin/bash
# Gathers the stock OpenFaaS programs that tests and benchmarks run, in one directory.
#
#   tools/stock.sh [DIR] [bench]     DIR: default target/stock under the project; must hold a slash if given
#
#   faas-cli, of-watchdog, fwatchdog   linked from $FAAS_CLI, $OF_WATCHDOG, $FWATCHDOG, or else from PATH,
#                                      where they are installed; what is not found is named, and is no error
#   bench     also builds stock-proxy (benches/stock-proxy): faas-provider's own proxy, pinned in its go.mod
set -euo pipefail

project=$(cd "$(dirname "$0")/.." && pwd)
dir=$project/target/stock bench=''
for arg in "$@"; do
    case $arg in
        bench) bench=1 ;;
        */*) dir=$arg ;;
        *) echo "usage: tools/stock.sh [DIR] [bench]" >&2; exit 2 ;;
    esac
done
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

link() { # link NAME GIVEN-PATH WANTED-VERSION
    local found=${2:-$(command -v "$1" || true)}
    if [ -x "$found" ]; then
        ln -sfn "$(readlink -f "$found")" "$dir/$1"
    else
        rm -f "$dir/$1"
        echo "stock: no $1 here; install $3 and run this again, or the tests that use it are skipped" >&2
    fi
}
link faas-cli "${FAAS_CLI:-}" 0.18.12
link of-watchdog "${OF_WATCHDOG:-}" 0.11.6
link fwatchdog "${FWATCHDOG:-}" "classic-watchdog 0.3.9"

[ -n "$bench" ] || exit 0
source=$project/benches/stock-proxy
# The stamp is all that the binary is made from: sources, pins and compiler.
stamp=$({ cat "$source"/{main.go,go.mod,go.sum}; go version; } | sha256sum)
if [ ! -x "$dir/stock-proxy" ] || [ "$(cat "$dir/stock-proxy.stamp" 2>/dev/null)" != "$stamp" ]; then
    (cd "$source" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags '-s -w' -o "$dir/stock-proxy.new" .)
    mv "$dir/stock-proxy.new" "$dir/stock-proxy"
    echo "$stamp" > "$dir/stock-proxy.stamp"
fi
