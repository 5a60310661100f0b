#!/usr/bin/env bash
# Brings a Debian machine that has Rust and a C compiler to where the named purpose works. Installs only what is
# missing; with nothing missing it takes well under a second. Never touches anything outside Debian packages and
# the parts cache.
#
#   scripts/setup.sh build    what `cargo build` needs
#   scripts/setup.sh run      … and what local functions need (make demo)
#   scripts/setup.sh node     what the Node runtime and its tests need (make node)
#   scripts/setup.sh test     … and what the tests need, with the Kafka jars and Kubernetes (make test)
#   scripts/setup.sh bench    … and the load generator (make bench)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
purpose=${1:-test}

missing=()
need() { # $1: Debian package, $2…: a test that succeeds where nothing is to be installed
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
have() { command -v "$1"; }
header() { echo "#include <$1>" | cc -E - ; }
venv() { python3 -c 'import venv, ensurepip'; }

for_build() {
    # librdkafka is compiled from source, statically: cmake, a C and a C++ compiler, and the headers it looks for.
    need build-essential eval 'command -v cc && command -v c++ && command -v make'
    need cmake have cmake
    need pkg-config have pkg-config
    need libssl-dev header openssl/ssl.h
    need libcurl4-openssl-dev header curl/curl.h
    need zlib1g-dev header zlib.h
}
for_run() {
    for_build
    # Functions run as child processes in a Python virtual environment.
    need python3 have python3
    need python3-venv venv
}
for_node() {
    # Any Node from 18 on; Debian's npm is large, and asked for only where there is none.
    need nodejs have node
    need npm have npm
    # Its contract tests are written in Python.
    need python3 have python3
    need python3-venv venv
    # Ends a worker with its server.
    need util-linux have setpriv
}
for_test() {
    for_run
    for_node
    # Apache Kafka runs on Java 17; Maven fetches its jars and those of DynamoDB; setpriv ends brokers with the test that started them.
    need default-jre-headless have java
    for part in kafka dynamodb; do
        [ -d "$("$here/parts.sh" "$part" 2>/dev/null || echo /nonexistent)" ] || need maven have mvn
    done
    need util-linux have setpriv
    # Certificates of the brokers that speak TLS, keys of the API server.
    need openssl have openssl
    # Go, where the machine has none that is new enough (scripts/parts.sh).
    need curl have curl
    need unzip have unzip
    # The cluster (scripts/cluster.sh): containers and their network, and the way of Pods to other machines.
    need containerd have containerd
    need runc have runc
    need containernetworking-plugins test -x /usr/lib/cni/ptp
    need iptables have iptables
    need iproute2 have ip
    need procps have sysctl
    need slirp4netns have slirp4netns
    # A claim store.
    need redis-server have redis-server
    # Its images (scripts/test-images.sh).
    need buildah have buildah
    need mmdebstrap have mmdebstrap
}

# Debian starts the services of what it installs; the tests start what they need themselves. While a package is being
# installed, this file of Debian's own invention says no; where the machine has one already, that one holds.
without_services() { # $@: a command
    local policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || { "$@"; return; }
    # shellcheck disable=SC2086  # empty or one word
    printf '#!/bin/sh\nexit 101\n' | $sudo install -m 755 /dev/stdin "$policy"
    # shellcheck disable=SC2064  # as they are now
    trap "$sudo rm -f $policy" EXIT
    "$@"
    $sudo rm -f "$policy"
}

install_packages() {
    $sudo apt-get update -q && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

case $purpose in
build) for_build ;;
run) for_run ;;
node) for_node ;;
test) for_test ;;
bench)
    for_test
    need wrk have wrk
    ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

if ! command -v cargo >/dev/null; then
    echo "setup: Rust is missing: install rustup (the version is in rust-toolchain.toml), then run this again" >&2
    exit 1
fi

if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "setup: this is no Debian; install what these Debian packages hold, then run this again: ${missing[*]}" >&2
        exit 1
    fi
    sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "setup: neither root nor sudo; install: ${missing[*]}" >&2; exit 1; }
        sudo=sudo
    fi
    echo "setup: installing ${missing[*]} (usually 20 to 90 seconds) …"
    log=$(mktemp)
    if ! without_services install_packages "${missing[@]}" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        echo "setup: apt-get failed; the whole of its output is in $log" >&2
        exit 1
    fi
    rm -f "$log"
fi

case $purpose in
test) "$here/parts.sh" fetch ;;
bench) "$here/parts.sh" fetch kafka nats kinesis ;;
esac
