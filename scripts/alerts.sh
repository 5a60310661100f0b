#!/usr/bin/env bash
# Checks the alert rules and runs their tests with promtool: the one on PATH, or Debian's, unpacked (not installed, so
# that no Prometheus is started) into the parts cache.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubeless/parts/promtool

promtool=$(command -v promtool || true)
if [ -z "$promtool" ] && [ ! -x "$cache/usr/bin/promtool" ]; then
    if ! command -v apt-get >/dev/null; then
        echo "alerts: no promtool on PATH and no apt-get to fetch Debian's; install Prometheus" >&2
        exit 1
    fi
    echo "alerts: fetching Debian's prometheus package for its promtool (usually 5 seconds) …"
    work=$(mktemp -d)
    trap 'rm -rf -- "$work"' EXIT
    if ! (cd "$work" && apt-get download -q prometheus) >"$work/log" 2>&1; then
        cat "$work/log" >&2
        echo "alerts: apt-get download failed; run: apt-get update" >&2
        exit 1
    fi
    mkdir -p "$cache"
    dpkg-deb -x "$work"/prometheus_*.deb "$work/unpacked"
    install -D "$work/unpacked/usr/bin/promtool" "$cache/usr/bin/promtool"
fi
promtool=${promtool:-$cache/usr/bin/promtool}

cd "$root/deploy/prometheus"
"$promtool" check rules rules.yaml
"$promtool" test rules tests.yaml
