#!/usr/bin/env bash
# The demo: real events through a real dispatcher that is killed in the middle, judged by the function itself. Needs no
# Kafka, Java, Docker or Kubernetes. Writes to a folder of its own under TMPDIR and to cargo's target folder only, and
# leaves no process behind. Usually a minute after the build; progress on standard error, the result on standard output.
#
#   scripts/demo.sh
#
#   DEMO_EVENTS=2000   fewer of the 10,452 events
#   DEMO_RATE=500      events a second (default 1200)
#   DEMO_BIN=DIR       programs that are there already, instead of building them
#   DEMO_KEEP=1        keeps the folder: journal, logs, what the function wrote
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
example=$root/config/examples/flights
events=${DEMO_EVENTS:-10452}
rate=${DEMO_RATE:-1200}

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m' wipe=$'\r\e[K'
else
    bold='' dim='' red='' plain='' wipe=''
fi
say() { printf '%s%s%s%s\n' "$wipe" "$bold" "$*" "$plain" >&2; }
note() { printf '%s  %s\n' "$wipe" "$*" >&2; }
# A line that the next one replaces; off a terminal every line stays, so there it comes only now and then.
shown=0
live() {
    if [ -n "$wipe" ]; then
        printf '%s  %s%s%s' "$wipe" "$dim" "$*" "$plain" >&2
    elif [ $((SECONDS - shown)) -ge 5 ]; then
        shown=$SECONDS
        printf '  %s\n' "$*" >&2
    fi
}

work='' dev='' send='' stage='starting' finished=''
clean_up() {
    status=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [ -n "$send" ]; then kill "$send" 2>/dev/null || true; fi
    if [ -n "$dev" ] && kill -TERM "$dev" 2>/dev/null; then
        # It stops its dispatcher and functions in order; the kernel ends them with it if it has to be killed.
        for _ in $(seq 100); do kill -0 "$dev" 2>/dev/null || break; sleep 0.1; done
        kill -KILL "$dev" 2>/dev/null || true
    fi
    wait 2>/dev/null || true
    if [ -z "$work" ]; then exit "$status"; fi
    if [ -n "$finished" ] && [ "$status" = 0 ] && [ -z "${DEMO_KEEP:-}" ]; then
        rm -rf "$work"
    elif [ "$stage" = interrupted ]; then
        rm -rf "$work"
        printf '%sdemo: interrupted; nothing is left running and %s is removed\n' "$wipe" "$work" >&2
    elif [ "$status" != 0 ]; then
        printf '%s%sdemo: failed while %s%s\n' "$wipe" "$red" "$stage" "$plain" >&2
        printf '  kubeless dev   %s\n' "$work/dev.log" >&2
        printf '  dispatcher     %s\n' "$work/flights/.kubeless/logs/dispatcher.log" >&2
        printf '  the folder     %s (it stays; remove it when you have seen enough)\n' "$work" >&2
    else
        printf '  The folder stays: %s\n' "$work" >&2
    fi
    exit "$status"
}
interrupted() {
    stage=interrupted
    exit 130
}
trap clean_up EXIT
trap interrupted INT TERM HUP
fail() {
    printf '%s%s%s%s\n' "$wipe" "$red" "$*" "$plain" >&2
    exit 1
}

# 1. The programs.
if [ -n "${DEMO_BIN:-}" ]; then
    bin=$(cd "$DEMO_BIN" && pwd)
else
    stage='installing what is missing'
    "$here/setup.sh" run >&2
    stage='building'
    target=$(cd "$root" && cargo metadata --no-deps --format-version 1 |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    bin=$target/release
    if [ ! -x "$bin/kubeless-dispatcher" ] || [ ! -x "$bin/kubeless" ]; then
        say "Building the two programs (once; takes 10 to 18 minutes on two cores, linking most of it)"
    else
        say "Building the two programs, if they changed (then usually 2 minutes)"
    fi
    building=$SECONDS
    (cd "$root" && cargo build --release --bins >&2)
    note "built in $((SECONDS - building)) s"
fi
began=$SECONDS

# 2. A copy of the example, and local mode on it.
stage='starting local mode'
work=$(mktemp -d "${TMPDIR:-/tmp}/kubeless-demo.XXXXXX")
cp -r "$example" "$work/flights"
sed -i "s|value: witness.txt|value: $work/witness.txt|" "$work/flights/flights.yaml"
: >"$work/witness.txt"
state=$work/flights/.kubeless
journal=$state/state/journal
say "Starting kubeless dev on a copy of config/examples/flights in $work"
note "one Python function, one KafkaTrigger, an embedded Kafka-protocol broker"
note "the function's runtime is installed into the copy (usually 5 to 30 s)"
# A session of its own: Ctrl-C reaches this script, which stops it in order.
setsid "$bin/kubeless" dev "$work/flights" >"$work/outcomes.jsonl" 2>"$work/dev.log" </dev/null &
dev=$!
alive() {
    kill -0 "$dev" 2>/dev/null && return
    tail -n 5 "$work/dev.log" >&2
    fail "kubeless dev ended by itself"
}
until_true() { # $1: seconds, $2: what is waited for, $3…: a test
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        alive
        if [ $SECONDS -ge $deadline ]; then
            tail -n 15 "$work/dev.log" >&2
            fail "waited too long: $what"
        fi
        live "waiting: $what"
        sleep 0.1
    done
}
member() {
    python3 -c 'import functools, json, sys
print(functools.reduce(dict.get, sys.argv[2:], json.load(open(sys.argv[1]))))' "$state/run/dev.json" "$@"
}
function_ready() {
    if grep -q 'pip install ended\|venv ended' "$work/dev.log"; then
        grep '\[pip\]\|ended' "$work/dev.log" >&2
        fail "the Python packages of the function's runtime could not be installed; is the package index reachable?"
    fi
    grep -q 'function .* ready at' "$work/dev.log"
}
until_true 20 'local mode says where it is' test -s "$state/run/dev.json"
broker=$(member servers kafka) admin=$(member admin)
until_true 180 'the function' function_ready
until_true 40 'the dispatcher to join its consumer group' python3 "$here/demo_judge.py" ready "$admin"
first=$(cat "$state/dispatcher.pid")
note "ready after $((SECONDS - began)) s: broker $broker, dispatcher pid $first"

# 3. The stream.
stage='streaming'
expected=$((events + events / 20))
say "Streaming $events departures and $((events / 20)) repeats of them, $rate a second"
python3 "$here/demo_stream.py" "$work/flights/flights.jsonl.gz" --count "$events" --rate "$rate" \
    --produced "$work/produced.tsv" |
    "$bin/kubeless" send flights --file - --id-from id --key-from aircraft --positions --broker "$broker" \
        >"$work/positions.txt" 2>"$work/send.log" &
send=$!
look() { read -r calls ended lag < <(python3 "$here/demo_judge.py" progress "$work" "$journal" "$admin"); }
lines_in() { wc -l <"$1"; }

# 4. The kill, when half of the events have reached the function.
while [ "$(lines_in "$work/witness.txt")" -lt $((events / 2)) ]; do
    alive
    if [ $((SECONDS - began)) -ge 240 ]; then
        fail "after four minutes the function has been called $(lines_in "$work/witness.txt") times only"
    fi
    live "$(lines_in "$work/witness.txt") of $events calls"
    sleep 0.05
done
stage='killing the dispatcher'
kill -9 "$first"
killed=$(date +%s%N)
at=$(lines_in "$work/witness.txt")
say "kill -9 $first: the dispatcher is dead after $at calls; the producer goes on"
stage='waiting for the next dispatcher'
restarted() {
    second=$(cat "$state/dispatcher.pid" 2>/dev/null) || return 1
    [ "$second" != "$first" ] && kill -0 "$second" 2>/dev/null
}
until_true 20 'kubeless dev starts it again' restarted
note "kubeless dev started it again, pid $second"
note "it may take over when the dead one's session in the consumer group has run out (6 s)"
taken_over() {
    now=$(lines_in "$work/witness.txt")
    [ "$now" -gt "$at" ] || [ "$now" -ge "$events" ]
}
at=$(lines_in "$work/witness.txt")
until_true 60 'it takes over' taken_over
note "first call after $(awk -v ns=$(($(date +%s%N) - killed)) 'BEGIN { printf "%.1f", ns / 1e9 }') s without any"

# 5. The rest.
stage='delivering the rest'
deadline=$((SECONDS + 90))
calls=0 ended=0 lag='?'
while :; do
    alive
    look
    live "$calls calls, $ended of $expected events have an outcome, $lag wait in the broker"
    if [ "$ended" -ge "$expected" ] && [ "$lag" = 0 ] && ! kill -0 "$send" 2>/dev/null; then break; fi
    if [ $SECONDS -ge $deadline ]; then
        fail "not settled: $calls calls, $ended of $expected events have an outcome, lag $lag"
    fi
    sleep 0.3
done
if ! wait "$send"; then
    cat "$work/send.log" >&2
    fail "the producer failed"
fi
send=''
note "every event has an outcome and the broker has no more"

# 6. The end.
stage='stopping'
kill -TERM "$dev"
status=0
wait "$dev" || status=$?
if [ "$status" != 0 ]; then fail "kubeless dev ended with code $status"; fi
dev=''
left=$(python3 "$here/demo_judge.py" left "$work")
if [ -n "$left" ]; then fail "still running: $left"; fi
note "kubeless dev, dispatcher and function have ended; $((SECONDS - began)) s in all"
stage='judging'
printf '\n'
python3 "$here/demo_judge.py" verdict "$work" "$journal"
finished=1
