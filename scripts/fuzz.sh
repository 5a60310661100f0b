#!/usr/bin/env bash
# Runs every fuzz target of fuzz/ for a while and stops at the first input that breaks one. Needs a nightly toolchain of
# rustup's; installs cargo-fuzz where it is missing. New inputs go to fuzz/corpus, a breaking one to fuzz/artifacts.
#
#   scripts/fuzz.sh                      every target, a minute each (the first build takes usually 8 to 17 minutes)
#   scripts/fuzz.sh register_decode      this one only
#
#   FUZZ_SECONDS=600   for so long each (default 60)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
version=0.13.2
seconds=${FUZZ_SECONDS:-60}

say() { printf 'fuzz: %s\n' "$*" >&2; }
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { say "FUZZ_SECONDS=$seconds is no number of seconds"; exit 2; }
"$here/setup.sh" build
if ! cargo +nightly --version >/dev/null 2>&1; then
    say 'a nightly toolchain is missing; to have it (usually a minute): rustup toolchain install nightly --profile minimal'
    exit 1
fi
if ! command -v cargo-fuzz >/dev/null; then
    say "installing cargo-fuzz $version (usually 1 to 2 minutes) …"
    cargo install --locked --quiet "cargo-fuzz@$version"
fi

cd "$root"
mapfile -t targets < <(cargo +nightly fuzz list)
if [ $# -gt 0 ]; then targets=("$@"); fi
# The library is built with one codegen for all targets: the second is only linked.
say "building ${targets[*]} (the first time usually 8 to 17 minutes on two cores) …"
for target in "${targets[@]}"; do cargo +nightly fuzz build "$target"; done
for target in "${targets[@]}"; do
    corpus=fuzz/corpus/$target
    mkdir -p "$corpus"
    folders=("$corpus")
    # What people write is the best beginning.
    if [ "$target" = yaml_to_resource ]; then
        seeds=$(mktemp -d)
        trap 'rm -rf "$seeds"' EXIT
        n=0
        while IFS= read -r -d '' file; do cp "$file" "$seeds/$((n += 1))"; done \
            < <(find config/examples deploy -name '*.yaml' -size -64k -print0)
        folders+=("$seeds")
    fi
    say "$target for $seconds s …"
    # The limits stand for the promise: no input of this size costs more than a moment.
    cargo +nightly fuzz run "$target" "${folders[@]}" -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -max_len=4096 -print_final_stats=1 2>&1 | grep -E '^(Done|stat::number_of|==|SUMMARY|artifact|thread|Test unit|Failing)|panicked' >&2 ||
        { say "$target failed; the input is in fuzz/artifacts/$target"; exit 1; }
done
say "${#targets[@]} targets, $seconds s each: nothing found"
