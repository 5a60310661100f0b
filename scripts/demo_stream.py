#!/usr/bin/env python3
"""The producer of the demo: writes events to standard output, one JSON object a line, at a steady rate, and says some of
them twice, as producers that retry do.

    scripts/demo_stream.py EVENTS.jsonl.gz --count 10452 --rate 1500 --produced FILE

Which events are repeated, and how much later, depends on their number only: every run produces the same. Each line is
noted in FILE (number of the event, first or repeat, id, key; tab-separated) before it is written.
"""

import argparse
import gzip
import heapq
import json
import random
import sys
import time

# One event in twenty is said twice, 1 to 400 events later: mostly in another batch, often across the crash.
REPEAT_EVERY, LATEST = 20, 400
TICK = 0.01


def lines(path, count):
    """(number, first or repeat, id, key, line) in the order of production."""
    chance = random.Random(2013)
    waiting = []
    with gzip.open(path, "rt", encoding="utf-8") as events:
        for number, line in enumerate(events):
            if number == count:
                break
            event = json.loads(line)
            yield number, "first", event["id"], event["aircraft"], line
            if number % REPEAT_EVERY == REPEAT_EVERY - 1:
                due = number + chance.randint(1, LATEST)
                heapq.heappush(waiting, (due, number, event["id"], event["aircraft"], line))
            while waiting and waiting[0][0] <= number:
                _, repeated, *rest = heapq.heappop(waiting)
                yield (repeated, "repeat", *rest)
    while waiting:
        _, repeated, *rest = heapq.heappop(waiting)
        yield (repeated, "repeat", *rest)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("events")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="events a second")
    parser.add_argument("--produced", required=True, metavar="FILE")
    args = parser.parse_args()
    started, written = time.monotonic(), 0
    with open(args.produced, "w", encoding="utf-8") as produced:
        for number, what, event_id, key, line in lines(args.events, args.count):
            while written >= (time.monotonic() - started) * args.rate:
                sys.stdout.flush()
                time.sleep(TICK)
            produced.write("%d\t%s\t%s\t%s\n" % (number, what, event_id, key))
            produced.flush()
            sys.stdout.write(line)
            written += 1
    sys.stdout.flush()


try:
    main()
except BrokenPipeError:
    # The other end is gone and has said why.
    sys.stderr.close()
    sys.exit(1)
