"""The frames between the server and a worker: two lengths, a JSON head, a body as it is."""

import json
import struct

LENGTHS = struct.Struct("!IQ")


def pack(head, body=b""):
    """The frame's parts, in order; a large body is not copied."""
    text = json.dumps(head, separators=(",", ":")).encode()
    prefix = LENGTHS.pack(len(text), len(body)) + text
    if len(body) <= 65536:
        return [prefix + body]
    return [prefix, body]


class Unpacker:
    """Bytes in, whole frames out."""

    def __init__(self):
        self._buffer = bytearray()

    def feed(self, data):
        buffer = self._buffer
        buffer += data
        if len(buffer) < LENGTHS.size:
            return None
        head, body = LENGTHS.unpack_from(buffer)
        start = LENGTHS.size + head
        if len(buffer) < start + body:
            return None
        frame = json.loads(buffer[LENGTHS.size:start]), bytes(buffer[start:start + body])
        del buffer[:start + body]
        return frame


def read(stream):
    """One frame from a blocking buffered stream, or None at its end."""
    lengths = stream.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    head, body = LENGTHS.unpack(lengths)
    head_bytes = stream.read(head)
    body_bytes = stream.read(body) if body else b""
    if len(head_bytes) < head or len(body_bytes) < body:
        return None
    return json.loads(head_bytes), body_bytes
