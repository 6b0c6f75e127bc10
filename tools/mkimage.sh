#!/bin/bash
# Makes a container image (what `docker save` writes) of a directory, without any container program.
#
#   tools/mkimage.sh [-u USER] [-e NAME=VALUE]... TAG OUT.tar DIR PROGRAM [ARGUMENT]...
#
# DIR becomes the root filesystem, everything in it root's. It runs PROGRAM as USER (default 1000:1000).
set -euo pipefail

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
user=1000:1000 env=()
while getopts u:e: option; do
    case $option in
        u) user=$OPTARG ;;
        e) env+=("$OPTARG") ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 4 ] || usage
tag=$1 out=$2 dir=$3
shift 3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

json() { # json TEXT...: a JSON array of texts
    local text all=''
    for text; do
        text=${text//\\/\\\\} text=${text//\"/\\\"}
        all+=${all:+,}\"$text\"
    done
    printf '[%s]' "$all"
}

if tar --version | grep -q GNU; then owner=(--owner=0 --group=0 --numeric-owner --sort=name --mtime=@0); else owner=(--uid 0 --gid 0); fi
tar -C "$dir" "${owner[@]}" -cf "$work/layer.tar" .
layer=$(sha256sum < "$work/layer.tar" | cut -d' ' -f1)
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
cat > "$work/config.json" <<JSON
{"architecture":"$arch","os":"$(uname -s | tr '[:upper:]' '[:lower:]')","config":{"User":"$user","Env":$(json PATH=/usr/local/bin:/usr/bin:/bin "${env[@]}"),"Entrypoint":$(json "$@")},"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
JSON
cat > "$work/manifest.json" <<JSON
[{"Config":"config.json","RepoTags":$(json "$tag"),"Layers":["layer.tar"]}]
JSON
tar -C "$work" -cf "$out" layer.tar config.json manifest.json
