#!/usr/bin/env bash
# Container images for the test cluster, built here from the same Dockerfiles that users have: nothing is pulled. The base,
# debian:bookworm-slim, is put together from Debian's packages. Each image becomes one docker-archive in the cache folder,
# named by the contents it was built from; one that is there costs nothing. Prints the archive's path, for
# `scripts/cluster.sh load-image`. Must never push, or touch the storage of the machine's own container tools.
#
#   scripts/test-images.sh python | nodejs      a runtime for functions, from deploy/runtimes (usually 1 to 2 minutes, once)
#   scripts/test-images.sh product DIR          the programs in DIR, from deploy/docker (usually half a minute)
#   scripts/test-images.sh folder DIR NAME      the Dockerfile in DIR, which names debian:bookworm-slim, as image NAME
#   scripts/test-images.sh base                 only the base, which is kept for the others (usually a minute, once)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubeless/images
base=docker.io/library/debian:bookworm-slim
# What the slim image of Debian leaves out too. ca-certificates is in, so that a mirror's authority can be laid over its bundle.
recipe=(--variant=minbase --include=ca-certificates --dpkgopt='path-exclude=/usr/share/doc/*'
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' bookworm)

say() { echo "test-images: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

sum() { sha256sum | cut -c1-16; }

contents() { # $@: files and folders; what is in them, whoever made them, when and where
    local path each=()
    for path; do each+=(-C "$(dirname "$path")" "$(basename "$path")"); done
    tar --sort=name --owner=0 --group=0 --mtime=@0 --exclude=__pycache__ -cf - "${each[@]}" | sum
}

prepare() {
    local program
    [ "$(id -u)" = 0 ] || fail "only root can build images here: run it with sudo"
    for program in buildah mmdebstrap; do
        command -v "$program" >/dev/null || fail "$program is missing; to install it: make setup"
    done
    mkdir -p "$cache"
    # One build at a time: they share a storage.
    exec 9>"$cache/.lock"
    flock -n 9 || { say "another run builds images; waiting for it …" && flock 9; }
    cat >"$cache/storage.conf" <<EOF
[storage]
driver = "overlay"
graphroot = "$cache/storage"
runroot = "$cache/run"
EOF
    export CONTAINERS_STORAGE_CONF=$cache/storage.conf BUILDAH_ISOLATION=chroot BUILDER=buildah
    trap 'rm -f -- "$cache"/.new-$$*' EXIT
}

# How this machine reaches packages is part of the base, so that it holds in builds and for what Pods install: the bundle
# with the machine's own authority, pip's settings.
machine_files() {
    local file
    for file in "${SSL_CERT_FILE:-}" /etc/pip.conf; do [ ! -f "$file" ] || echo "$file"; done
}

base_sum() {
    local files
    mapfile -t files < <(machine_files)
    { printf '%s\n' "${recipe[@]}" && sha256sum -- "${files[@]}" /dev/null; } | sum
}

make_base() {
    local archive container made=$cache/storage.base
    archive=$cache/base-$(printf '%s\n' "${recipe[@]}" | sum).tar
    if [ ! -e "$archive" ]; then
        say "putting $base together from Debian's packages (usually a minute, once) …"
        mmdebstrap --quiet "${recipe[@]}" "$cache/.new-$$" >&2
        mv "$cache/.new-$$" "$archive"
    fi
    [ "$(cat "$made" 2>/dev/null)" != "$(base_sum)" ] || return 0
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$archive" / >/dev/null
    if [ -n "${SSL_CERT_FILE:-}" ]; then
        buildah copy --quiet "$container" "$SSL_CERT_FILE" /etc/ssl/certs/ca-certificates.crt >/dev/null
        # Node has authorities of its own, unless told.
        buildah config --env NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt "$container"
    fi
    [ ! -e /etc/pip.conf ] || buildah copy --quiet "$container" /etc/pip.conf /etc/pip.conf >/dev/null
    buildah config --cmd bash "$container"
    buildah commit --quiet --rm "$container" "$base" >/dev/null
    base_sum >"$made"
}

image() { # $1: image, $2: sum of its contents, $3…: a command that builds it, to be followed by builder options
    local name=$1 archive begun=$SECONDS
    archive=$cache/$(basename "${1%%:*}")-$(echo "$1 $2 $(base_sum)" | sum).tar
    shift 2
    if [ ! -e "$archive" ]; then
        prepare
        make_base
        say "building $name …"
        "$@" --network host --pull-never >"$archive.log" 2>&1 || fail "$(tail -n 40 "$archive.log")"
        buildah push --quiet "$name" "docker-archive:$cache/.new-$$:$name" >/dev/null
        buildah rmi "$name" >/dev/null
        # Archives of earlier contents are of no more use.
        rm -f -- "$cache/$(basename "${name%%:*}")"-*.tar*
        mv "$cache/.new-$$" "$archive"
        say "$name took $((SECONDS - begun)) s, $(du -h "$archive" | cut -f1)"
    fi
    echo "$archive"
}

name_of() { "$root/scripts/images.sh" names | grep -F "$1"; }
build_folder() { # $1: folder, $2: image, $3…: options
    buildah build --tag "$2" "${@:3}" "$1"
}

case ${1:-} in
python | nodejs)
    source=$root/deploy/runtimes/$1
    image "$(name_of "runtime-$1")" "$(contents "$source" "$root/scripts/images.sh")" "$root/scripts/images.sh" "$1" --
    ;;
product)
    programs=$(cd "${2:?product needs the folder of the programs}" && pwd)
    mapfile -t files < <(find "$programs" -maxdepth 1 -type f -executable -name 'kubeless*' | sort)
    image "$(name_of /kubeless:)" "$(contents "${files[@]}" "$root/deploy/docker" "$root/scripts/images.sh")" \
        "$root/scripts/images.sh" product --programs "$programs" --
    ;;
folder)
    folder=$(cd "${2:?folder needs a folder}" && pwd)
    image "${3:?folder needs the image to be made}" "$(contents "$folder")" build_folder "$folder" "$3"
    ;;
base)
    prepare
    make_base
    ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
