#!/bin/bash
# Asks a provider whether it keeps the contract: tests/suite/conformance, a sentence a test.
#
#   tools/conformance.sh URL [TEST]...
#
# URL is http://host:port of a provider (or of a gateway before it) that has no functions: whatever it has in the end is
# deleted. TEST is a part of a test's name. Set before, where they are needed:
#   FAAS_PROVIDER_CREDENTIALS   user:password
#   FAAS_PROBE_IMAGE            the image of tests/functions/probe as the provider can pull it
#                               (default example.test/probe:1, for a provider that has it loaded)
#
# What only some providers can do is skipped, with a reason. docs/differences.md says where this provider differs.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
url=$1
shift
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- ''
for part in "$@"; do
    FAAS_PROVIDER_URL=$url cargo test --quiet --test suite "conformance::$part" -- \
        --skip conformance::itself --test-threads=1 --nocapture
done
