#!/bin/bash
# Gathers the stock OpenFaaS programs that tests and benchmarks run, in one directory.
#
#   tools/stock.sh [DIR] [bench]     DIR: default target/stock under the project; must hold a slash if given
#
#   faas-cli, of-watchdog, fwatchdog, openfaas-gateway
#             linked from $FAAS_CLI, $OF_WATCHDOG, $FWATCHDOG, $OPENFAAS_GATEWAY or from PATH; built from their pinned
#             Go modules where they are not installed; where that fails too (not every module proxy serves them)
#             they are named: no error
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

link() { # link NAME GIVEN-PATH MODULE COMMIT VERSION
    local name=$1 found=${2:-$(command -v "$1" || true)} program=${3##*/}
    rm -f "$dir/$name"
    if [ -x "$found" ]; then
        ln -sfn "$(readlink -f "$found")" "$dir/$name"
    elif CGO_ENABLED=0 GOBIN=$dir/bin go install -trimpath -ldflags '-s -w' "$3@$4" 2> "$dir/$name.log"; then
        ln -sfn "$dir/bin/$program" "$dir/$name"
    else
        echo "stock: no $name here, and go install $3@$4 (version $5) failed: $(tail -n 1 "$dir/$name.log")" >&2
        echo "stock: tests that use $name are skipped, and counted as skipped" >&2
    fi
}
link faas-cli "${FAAS_CLI:-}" github.com/openfaas/faas-cli c8191b71 0.18.12
link of-watchdog "${OF_WATCHDOG:-}" github.com/openfaas/of-watchdog 9bdadb1 0.11.6
link fwatchdog "${FWATCHDOG:-}" github.com/openfaas/classic-watchdog 23db914 0.3.9
# Under a licence of its own (OpenFaaS CE EULA): tests run it, and nothing of it is shipped.
link openfaas-gateway "${OPENFAAS_GATEWAY:-}" github.com/openfaas/faas/gateway 8d803bf9 0.27.14
# Its page: a directory beside the program, or in the module that it was built from.
rm -f "$dir/openfaas-gateway-assets"
for assets in "$(dirname "$(readlink -f "$dir/openfaas-gateway" || echo /)")/assets" \
    "$(go env GOMODCACHE)"/github.com/openfaas/faas/gateway@*/assets; do
    [ ! -e "$assets/index.html" ] || ln -sfn "$assets" "$dir/openfaas-gateway-assets"
done

[ -n "$bench" ] || exit 0
source=$project/benches/stock-proxy
# The stamp is all that the binary is made from: sources, pins and compiler.
stamp=$({ cat "$source"/{main.go,go.mod,go.sum}; go version; } | sha256sum)
if [ ! -x "$dir/stock-proxy" ] || [ "$(cat "$dir/stock-proxy.stamp" 2>/dev/null)" != "$stamp" ]; then
    (cd "$source" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags '-s -w' -o "$dir/stock-proxy.new" .)
    mv "$dir/stock-proxy.new" "$dir/stock-proxy"
    echo "$stamp" > "$dir/stock-proxy.stamp"
fi
