#!/usr/bin/env python3
"""The judge of the demo. Three parties wrote down what happened, none of them is believed alone:

    produced.tsv + positions.txt   the producer: what it sent, and where the broker put each one
    journal                        the dispatcher: how each position ended
    witness.txt                    the function: the id of every call, one line each

    scripts/demo_judge.py progress FOLDER JOURNAL ADMIN   prints calls, positions with an outcome, events not yet taken
    scripts/demo_judge.py verdict FOLDER JOURNAL          prints the table; exit 1 if a call was made twice, an event has
                                                          no outcome, or two of the three contradict each other
    scripts/demo_judge.py left FOLDER                     prints processes that still have to do with the folder
    scripts/demo_judge.py ready ADMIN                     exit 0 once the dispatcher is ready and reads
"""

import collections
import json
import os
import pathlib
import sys
import urllib.request

CLAIMED = ("delivered", "failed", "unanswered", "unreachable", "in_doubt")


def read_lines(path):
    """Whole lines only: the last one may still be being written."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return text.split("\n")[:-1]


def produced_of(folder):
    """[(position, number, first or repeat, id, key)]: the n-th line that was sent is the n-th that was acknowledged."""
    sent = [line.split("\t") for line in read_lines(folder / "produced.tsv")]
    return sent, read_lines(folder / "positions.txt")


def outcomes_of(journal):
    """position -> [outcome lines]; an own outcome of the claimer supersedes a successor's doubt about the same event."""
    found = collections.defaultdict(list)
    for segment in sorted(pathlib.Path(journal).glob("*.jsonl")):
        for text in read_lines(segment):
            line = json.loads(text)
            found["%s/%d/%d" % (line["stream"], line["shard"], line["sequence"])].append(line)
    for position, lines in found.items():
        own = [line for line in lines if line["outcome"] != "in_doubt"]
        found[position] = own or lines[:1]
    return found


def metrics(admin):
    with urllib.request.urlopen("http://%s/metrics" % admin, timeout=2) as answer:
        return answer.read().decode()


def progress(folder, journal, admin):
    lag = "?"
    try:
        lags = [line.split()[-1] for line in metrics(admin).splitlines() if line.startswith("kubeless_source_lag{")]
        lag = "%d" % sum(float(number) for number in lags) if lags else "?"
    except OSError:
        pass
    print(len(read_lines(folder / "witness.txt")), len(outcomes_of(journal)), lag)


class Verdict:
    def __init__(self, folder, journal):
        self.sent, self.positions = produced_of(folder)
        self.outcomes = outcomes_of(journal)
        self.calls = collections.Counter(read_lines(folder / "witness.txt"))
        self.call_order = read_lines(folder / "witness.txt")
        self.problems = []
        self.by_id = collections.defaultdict(list)
        self.count = collections.Counter()

    def problem(self, what, which):
        which = list(which)
        if which:
            shown = ", ".join(map(str, which[:5])) + (", …" if len(which) > 5 else "")
            self.problems.append("%d %s: %s" % (len(which), what, shown))

    def check(self):
        sent, positions, outcomes = self.sent, self.positions, self.outcomes
        if len(sent) != len(positions):
            self.problems.append("%d events were sent and %d acknowledged" % (len(sent), len(positions)))
        self.problem("positions were acknowledged twice", (p for p, n in collections.Counter(positions).items() if n > 1))
        self.problem("produced events have no outcome", (p for p in positions if p not in outcomes))
        known = set(positions)
        self.problem("outcomes are of events that nobody produced", (p for p in outcomes if p not in known))
        self.problem("events have two outcomes", (p for p, lines in outcomes.items() if len(lines) > 1))
        ids = {event[2] for event in sent}
        self.problem("calls are of events that nobody produced", (i for i in self.calls if i not in ids))
        for (_, _, event_id, _), position in zip(sent, positions):
            if position in outcomes:
                line = outcomes[position][0]
                self.count[line["outcome"]] += 1
                self.by_id[event_id].append((position, line))
        pairs = list(zip(sent, positions))
        self.problem(
            "outcomes name another id than was produced there",
            (p for (_, _, i, _), p in pairs if p in outcomes and outcomes[p][0]["id"] != i),
        )
        self.check_calls()
        self.check_order()

    def check_calls(self):
        of = lambda event_id: [line["outcome"] for _, line in self.by_id[event_id]]
        ids = list(self.by_id)
        self.problem("ids were claimed twice", (i for i in ids if sum(o in CLAIMED for o in of(i)) > 1))
        self.problem("ids were stopped as duplicates of nothing", (i for i in ids if set(of(i)) == {"duplicate"}))
        self.problem(
            "events are recorded as delivered and the function knows nothing of them",
            (i for i in ids if "delivered" in of(i) and not self.calls[i]),
        )
        self.problem(
            "events were called that are recorded as never sent",
            (i for i in ids if self.calls[i] and not set(of(i)) & {"delivered", "failed", "unanswered", "in_doubt"}),
        )
        self.twice = sorted(i for i, n in self.calls.items() if n > 1)
        self.problem("ids were called twice or more, says the function", self.twice)

    def check_order(self):
        """Events of one aircraft were called in the order in which they were produced first."""
        number = {}
        for index, (_, what, event_id, key) in enumerate(self.sent):
            if what == "first":
                number[event_id] = (key, index)
        last, late = {}, []
        for event_id in self.call_order:
            if event_id in number:
                key, index = number[event_id]
                if index < last.get(key, -1):
                    late.append(event_id)
                last[key] = max(index, last.get(key, -1))
        self.problem("calls overtook an earlier event of their aircraft", late)

    def doubts(self):
        every = (pair for pairs in self.by_id.values() for pair in pairs)
        lines = [(position, line) for position, line in every if line["outcome"] == "in_doubt"]
        return sorted(lines, key=lambda pair: (pair[1]["shard"], pair[1]["sequence"]))

    def table(self):
        c, repeats = self.count, sum(event[1] == "repeat" for event in self.sent)
        number = lambda n: format(n, ",")
        doubts = self.doubts()
        called = sum(bool(self.calls[line["id"]]) for _, line in doubts)
        first, calls = number(len(self.sent) - repeats), number(sum(self.calls.values()))
        doubt = "open at the kill, named above, never called again (%d had been called)" % called
        rows = [
            ("produced", len(self.sent), "%s departures, %d of them said twice by the producer" % (first, repeats)),
            ("received", sum(c.values()), "events that the dispatcher took and recorded an outcome for"),
            ("delivered", c["delivered"], "the function was called and its answer came back"),
            ("duplicates stopped", c["duplicate"], "ids that were there before: the function was not called again"),
            ("in doubt", c["in_doubt"], doubt if doubts else "open at the kill"),
        ]
        told = {"delivered", "duplicate", "in_doubt"}
        words = {
            "failed": "the function answered with an error",
            "unanswered": "called, and no answer came",
            "unreachable": "the call never left",
        }
        rows += [(name, c[name], text) for name, text in words.items()]
        rows += [(name, n, "") for name, n in sorted(c.items()) if name not in told | set(words)]
        twice = "ids that the function wrote down more than once, in its %s calls" % calls
        rows.append(("invoked twice", len(self.twice), twice))
        if doubts:
            print("  In doubt, each by id and position (topic/partition/offset):")
            longest = max(len(line["id"]) for _, line in doubts)
            for position, line in doubts:
                reached = "was called, answer unknown" if self.calls[line["id"]] else "was not called"
                print("    %-*s  %-16s  %s" % (longest, line["id"], position, reached))
            print()
        width = max(len(name) for name, _, _ in rows)
        for name, n, text in rows:
            print(("  %-*s %7s   %s" % (width, name, number(n), text)).rstrip())
        c["received"] = sum(c.values())

    def last_line(self):
        c = self.count
        print(
            "demo: received=%d delivered=%d duplicates=%d in_doubt=%d invoked_twice=%d"
            % (c["received"], c["delivered"], c["duplicate"], c["in_doubt"], len(self.twice))
        )


def verdict(folder, journal):
    judged = Verdict(folder, journal)
    judged.check()
    judged.table()
    print()
    if judged.problems:
        for problem in judged.problems:
            print("  WRONG: %s" % problem)
    else:
        print("  Producer, dispatcher and function agree on every one of the %s events." % format(len(judged.sent), ","))
    print()
    judged.last_line()
    return 1 if judged.problems else 0


def left(folder):
    """Processes that run in the folder or were started with a path in it, except those that ask."""
    asking = {os.getpid(), os.getppid()}
    for process in pathlib.Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) in asking:
            continue
        try:
            arguments = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            inside = os.readlink(process / "cwd").startswith(str(folder))
        except OSError:
            continue
        if arguments and (inside or str(folder) in arguments):
            print(process.name, arguments)


def main():
    command, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if command == "progress" and len(arguments) == 3:
        progress(pathlib.Path(arguments[0]), arguments[1], arguments[2])
    elif command == "verdict" and len(arguments) == 2:
        return verdict(pathlib.Path(arguments[0]), arguments[1])
    elif command == "left" and len(arguments) == 1:
        left(pathlib.Path(arguments[0]))
    elif command == "ready" and len(arguments) == 1:
        try:
            urllib.request.urlopen("http://%s/readyz" % arguments[0], timeout=2).close()
            # A lag is known once the consumer group has dealt out the partitions.
            return 0 if "\nkubeless_source_lag{" in metrics(arguments[0]) else 1
        except OSError:
            return 1
    else:
        sys.exit(__doc__)
    return 0


sys.exit(main())
