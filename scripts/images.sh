#!/usr/bin/env bash
# Builds the container images from this checkout, with whichever of docker, podman and buildah is there.
#
#   scripts/images.sh product [-- BUILDER OPTIONS]              compiles inside the image (15 to 30 minutes)
#   scripts/images.sh product --programs DIR [-- OPTIONS]       takes the programs that `make build` left in DIR
#   scripts/images.sh python | nodejs [-- OPTIONS]              a runtime for functions
#   scripts/images.sh names                                     prints what each is called
#
# BUILDER chooses the tool; what follows `--` is handed to its build command. Nothing is pushed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)

name() { # $1: which image
    case $1 in
    product) echo "docker.io/kubeless/kubeless:$version" ;;
    python) echo "docker.io/kubeless/runtime-python:3.11-$version" ;;
    nodejs) echo "docker.io/kubeless/runtime-nodejs:18-$version" ;;
    *)
        echo "images: no image \`$1\`; there are product, python, nodejs" >&2
        return 2
        ;;
    esac
}

builder() {
    local tool
    for tool in ${BUILDER:-docker podman buildah}; do
        # A docker command without its daemon cannot build.
        if "$tool" info >/dev/null 2>&1; then
            echo "$tool"
            return
        fi
    done
    echo "images: none of ${BUILDER:-docker podman buildah} works here; install one of them (Debian: apt-get install buildah)" >&2
    return 1
}

build() { # $@: options and the folder to build from
    local tool
    tool=$(builder)
    echo "images: $tool builds $image"
    "$tool" build --tag "$image" "$@"
}

which=${1:-}
[ $# -gt 0 ] && shift
programs=
if [ "${1:-}" = --programs ]; then
    programs=${2:?--programs needs the folder}
    shift 2
fi
[ "${1:-}" = -- ] && shift

case $which in
names)
    for each in product python nodejs; do
        name "$each"
    done
    ;;
product)
    image=$(name product)
    if [ -z "$programs" ]; then
        build -f "$root/deploy/docker/Dockerfile" "$@" "$root"
        exit
    fi
    # Only the programs, without the tables that debuggers read: what lies beside them is gigabytes.
    stage=$(mktemp -d)
    trap 'rm -rf -- "$stage"' EXIT
    find "$programs" -maxdepth 1 -type f -executable -name 'kubeless*' -exec cp -t "$stage" '{}' +
    if [ ! -e "$stage/kubeless-dispatcher" ]; then
        echo "images: no kubeless-dispatcher in $programs; run: make build" >&2
        exit 1
    fi
    strip --strip-debug "$stage"/*
    build -f "$root/deploy/docker/Dockerfile" --target prebuilt "$@" "$stage"
    ;;
python | nodejs)
    image=$(name "$which")
    build "$@" "$root/deploy/runtimes/$which"
    ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
