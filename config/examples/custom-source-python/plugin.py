#!/usr/bin/env python3
"""A source of your own in one file: reads a log of CloudEvents (one JSON object a line, appended to by anybody) and pushes it to a
CustomTrigger. Its place in the log moves on when the dispatcher says that an event need not come again, so a kill at any moment loses
nothing; what comes twice after it is refused by the dispatcher, so no function is called twice.

    plugin.py LOG http://DISPATCHER:8081/events/NAMESPACE/TRIGGER --place FILE [--token-file FILE]

Replace `lines` and `keep` by the receive and acknowledge of your queue; the rest stays."""

import argparse
import collections
import http.client
import json
import os
import time
import urllib.parse

WINDOW = 1000  # events that are read and not done
BATCH = 100  # events of one push; not more than the dispatcher's max_batch
BATCH_BYTES = 1 << 20  # bytes of one push; less than the dispatcher's max_body_bytes
PAUSE = 0.05  # seconds until the log is looked at again
PATIENCE = 120  # seconds for an answer


class Entry:
    """A line that is read: where it ends, whether it is done, and when it may be pushed."""

    def __init__(self, line, end):
        self.line, self.end, self.done, self.due = line, end, False, 0.0
        try:
            self.alone = not isinstance(json.loads(line), dict)
        except ValueError:
            # It would break a batch; alone it is rejected, which the dispatcher's journal says.
            self.alone = True


def read_place(path):
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def keep(path, place):
    """Acknowledges: everything before this place is done."""
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(str(place))
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def lines(path, place, most):
    """The next complete lines, with the place where each ends."""
    try:
        log = open(path, "rb")
    except FileNotFoundError:
        return
    with log:
        log.seek(place)
        for line in log:
            if most <= 0 or not line.endswith(b"\n"):
                return
            place += len(line)
            most -= 1
            yield line.strip(), place


class Dispatcher:
    """One connection to the dispatcher's push endpoint."""

    def __init__(self, url, token_file):
        self.url, self.token_file, self.connection = urllib.parse.urlsplit(url), token_file, None

    def push(self, body, content_type):
        """Status, seconds to wait, and what became of each event; nothing of it is known where that is None."""
        headers = {"content-type": content_type, "prefer": "respond-async"}
        if self.token_file:
            # Read anew each time: it may have been changed.
            with open(self.token_file, encoding="ascii") as file:
                headers["authorization"] = "Bearer " + file.readline().strip()
        try:
            if self.connection is None:
                https = self.url.scheme == "https"
                kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
                self.connection = kind(self.url.netloc, timeout=PATIENCE)
            self.connection.request("POST", self.url.path, body, headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            # Whether it was claimed is not known: it comes again, and is called only if it was not.
            self.connection = None
            return None, 0.2, None, str(error)
        try:
            events = json.loads(text).get("events")
        except ValueError:
            events = None
        return answer.status, float(answer.getheader("retry-after") or 0.2), events, text.decode(errors="replace")


def some_of(window):
    """What is pushed next: what is due, a line that is no JSON object alone."""
    chosen, size, now = [], 0, time.monotonic()
    for entry in window:
        if entry.done or entry.due > now:
            continue
        if chosen and (entry.alone or size + len(entry.line) > BATCH_BYTES or len(chosen) == BATCH):
            break
        chosen.append(entry)
        size += len(entry.line)
        if entry.alone:
            break
    return chosen


def push(dispatcher, chosen):
    """Pushes, and marks what is done."""
    if chosen[0].alone or len(chosen) == 1:
        body, kind = chosen[0].line, "application/cloudevents+json"
    else:
        body, kind = b"[" + b",".join(entry.line for entry in chosen) + b"]", "application/cloudevents-batch+json"
    status, pause, events, said = dispatcher.push(body, kind)
    if events is not None and len(events) == len(chosen):
        for entry, event in zip(chosen, events):
            entry.done = not event["again"]
    elif status == 413 and len(chosen) == 1:
        # Never small enough; the dispatcher's journal has it as rejected.
        chosen[0].done = True
    else:
        print(f"not taken ({status}), again in {pause} s: {said.strip()}", flush=True)
    due = time.monotonic() + min(pause, 1.0)
    for entry in chosen:
        entry.due = due


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log")
    parser.add_argument("url")
    parser.add_argument("--place", required=True, help="file with the place up to which everything is done")
    parser.add_argument("--token-file", help="file whose first line is the trigger's token")
    options = parser.parse_args()
    dispatcher = Dispatcher(options.url, options.token_file)
    done = read = read_place(options.place)
    window = collections.deque()
    while True:
        for line, read in lines(options.log, read, WINDOW - len(window)):
            window.append(Entry(line, read))
        chosen = some_of(window)
        if chosen:
            push(dispatcher, chosen)
        else:
            time.sleep(PAUSE)
        before = done
        while window and window[0].done:
            done = window.popleft().end
        if done != before:
            keep(options.place, done)


if __name__ == "__main__":
    main()
