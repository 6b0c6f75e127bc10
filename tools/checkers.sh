#!/bin/bash
# Gathers what tests check the project's descriptions with, in one directory; what cannot be had is named, and the
# tests that need it are skipped.
#
#   tools/checkers.sh [DIR]            DIR: default target/checkers under the project
#
#   bin/st, bin/python                 schemathesis, jsonschema-rs and PyYAML, pinned in tests/api/requirements.txt (PyPI)
#   schema-cloud-config-v1.json        from Debian's package cloud-init, which is not installed: on a machine that is no
#                                      cloud's it has no business
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-$project/target/checkers}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

wanted=$(sha256sum < "$project/tests/api/requirements.txt")
if [ "$(cat "$dir/stamp" 2>/dev/null)" != "$wanted" ]; then
    if python3 -m venv "$dir" && "$dir/bin/pip" install -q -r "$project/tests/api/requirements.txt"; then
        echo "$wanted" > "$dir/stamp"
    else
        echo "checkers: no schemathesis; the tests that need it are skipped, and counted as skipped" >&2
    fi
fi

schema=$dir/schema-cloud-config-v1.json
if [ ! -e "$schema" ]; then
    temp=$(mktemp -d)
    trap 'rm -rf "$temp"' EXIT
    inside=./usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json
    if (cd "$temp" && apt-get -qq download cloud-init 2> err); then
        dpkg-deb --fsys-tarfile "$temp"/cloud-init_*.deb | tar -xOf - "$inside" > "$schema.new"
        mv "$schema.new" "$schema"
    else
        echo "checkers: no schema of cloud-init: $(tail -n 1 "$temp/err" 2>/dev/null)" >&2
    fi
fi
