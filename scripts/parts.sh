#!/usr/bin/env bash
# Third-party parts that only the tests need: fetched once, pinned by version and sha256, kept in the user's cache
# folder, where every checkout finds them. Safe to run twice at once: a part is fetched into a folder of its own
# and renamed into place whole.
#
#   scripts/parts.sh fetch       fetch what is missing (nothing to do: under a second)
#   scripts/parts.sh kafka       print the folder of the Kafka jars; fails with the fix if it is not there
#   scripts/parts.sh pin-kafka   rewrite SHA256SUMS after a change of version in tests/parts/kafka/pom.xml
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
parts=${XDG_CACHE_HOME:-$HOME/.cache}/kubeless/parts
kafka_pom=$root/tests/parts/kafka/pom.xml
kafka_sums=$root/tests/parts/kafka/SHA256SUMS

# The folder's name holds the sum of the sums: another pin is another folder, and old checkouts keep theirs.
kafka_dir() {
    echo "$parts/kafka-$(sha256sum "$kafka_sums" | cut -c1-16)"
}

download_kafka() { # $1: empty folder for the jars
    # The machine's own Maven settings decide where jars come from; SHA256SUMS decides whether they are the right ones.
    mvn --batch-mode --quiet -f "$kafka_pom" \
        org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$1"
}

verify() { # $1: folder, $2: SHA256SUMS; exactly those files, byte for byte
    (cd "$1" && sha256sum --quiet --strict --check "$2") &&
        diff <(cd "$1" && ls | sort) <(sed 's/^[0-9a-f]*  //' "$2" | sort) >&2
}

fetch_kafka() {
    local dir work
    dir=$(kafka_dir)
    [ -d "$dir" ] && return 0
    if ! command -v mvn >/dev/null; then
        echo "parts: Maven is missing; run: make setup" >&2
        return 1
    fi
    echo "parts: fetching Apache Kafka 4.1.0 with Maven (46 jars, 43 MB; usually 5 to 30 seconds) …"
    mkdir -p "$parts"
    work=$(mktemp -d "$parts/.fetch-XXXXXX")
    # shellcheck disable=SC2064  # the folder of now, not of later
    trap "rm -rf -- '$work'" EXIT
    download_kafka "$work/lib"
    if ! verify "$work/lib" "$kafka_sums"; then
        # What Maven kept must not poison the next try either.
        rm -rf -- "$work"
        echo "parts: a jar differs from tests/parts/kafka/SHA256SUMS (above); everything fetched was deleted." >&2
        echo "parts: if the local Maven repository is damaged, remove its org/apache/kafka folder and run: make setup" >&2
        return 1
    fi
    # -T: never into an existing folder. Losing the race to another run is fine, its jars passed the same sums.
    mv -T "$work/lib" "$dir" 2>/dev/null || [ -d "$dir" ]
    rm -rf -- "$work"
    echo "parts: Apache Kafka 4.1.0 is in $dir"
}

case ${1:-} in
fetch)
    fetch_kafka
    ;;
kafka)
    dir=$(kafka_dir)
    if [ ! -d "$dir" ]; then
        echo "the Kafka jars for the tests are not in $dir: run 'make setup' (usually under a minute)" >&2
        exit 1
    fi
    echo "$dir"
    ;;
pin-kafka)
    work=$(mktemp -d)
    trap 'rm -rf -- "$work"' EXIT
    download_kafka "$work/lib"
    (cd "$work/lib" && LC_ALL=C sha256sum -- *.jar) >"$kafka_sums"
    echo "parts: wrote $kafka_sums ($(wc -l <"$kafka_sums") jars); review the difference before committing it"
    ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
