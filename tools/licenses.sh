#!/bin/bash
# Fails if a crate that is built into the program has a licence that this project's own (BSD-2-Clause) does not go with.
set -euo pipefail
cd "$(dirname "$0")/.."
allowed='MIT|MIT-0|Apache-2.0|BSD-2-Clause|BSD-3-Clause|ISC|Zlib|0BSD|BSL-1.0|CC0-1.0|Unlicense|Unicode-3.0|Unicode-DFS-2016|CDLA-Permissive-2.0'

bad=0 count=0
while IFS=$'\t' read -r crate license; do
    count=$((count + 1))
    # An SPDX expression becomes arithmetic: 1 for what is allowed, 0 for anything else.
    expression=$(sed -E "s#/# OR #g; s/ WITH LLVM-exception//g; s/([A-Za-z0-9.+-]+)/<\1>/g; s/<OR>/||/g; s/<AND>/\&\&/g; s/<($allowed)>/1/g; s/<[^>]*>/0/g" <<< "$license")
    if [ -z "$license" ] || [ "$((expression))" = 0 ]; then
        echo "licenses: $crate is under ${license:-no licence that it names}" >&2
        bad=1
    fi
done < <(cargo tree --locked --edges normal,build --target x86_64-unknown-linux-gnu --target x86_64-unknown-freebsd --prefix none --no-dedupe --format $'{p}\t{l}' | grep -vE '^(faas-jails |$)' | sort -u)
[ "$count" -gt 50 ] || { echo "licenses: only $count crates were looked at" >&2; exit 1; }
[ "$bad" = 0 ] && echo "licenses: $count crates, all fine"
