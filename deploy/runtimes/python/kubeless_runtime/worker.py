"""One worker process: imports the function's module once, then answers one call at a time, in its main thread.

The server starts it with one end of a socket pair. It leaves when that socket ends, and dies with the server.
"""

import ctypes
import importlib.util
import os
import signal
import socket
import sys
import traceback

from . import paths, wire
from .settings import Settings

PR_SET_PDEATHSIG = 1


def die_with(parent):
    """Has the kernel kill this process when the server dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def load(settings):
    """The function itself."""
    # A module named like one that is loaded already (string.py, say) must not take its place.
    name = settings.module if settings.module not in sys.modules else "function"
    spec = importlib.util.spec_from_file_location(name, settings.path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return getattr(module, settings.handler)


def answer(function, settings, head, body):
    """Calls the function once. Returns (head, body) of the reply."""
    from . import event as events

    try:
        event = events.build(head, body)
    except events.BadBody:
        return {"status": 400, "headers": [["Content-Type", "text/plain"]], "called": False}, b"Invalid JSON\n"
    try:
        try:
            value = function(event, settings.context)
        except events.bottle.HTTPResponse as raised:
            value = raised
        status, headers, body = events.response(value)
        return {"status": status, "headers": headers, "called": True}, body
    except BaseException:  # SystemExit and KeyboardInterrupt too: a handler must not end its worker
        traceback.print_exc()
        return {"status": 500, "headers": [["Content-Type", "text/plain"]], "called": True}, b"Internal Server Error\n"


def main(argv):
    fd, parent = int(argv[1]), int(argv[2])
    die_with(parent)
    os.set_inheritable(fd, False)
    settings = Settings()
    sys.stdout.reconfigure(line_buffering=True)

    theirs = paths.take_out(settings.volume)
    from . import event as events

    events.bottle.BaseRequest.MEMFILE_MAX = settings.max_body  # or request.json would refuse beyond 100 KiB
    sys.path[:0] = theirs
    here = os.path.dirname(os.path.abspath(settings.path))
    if here not in sys.path:
        sys.path.insert(0, here)

    link = socket.socket(fileno=fd)
    stream = link.makefile("rb", buffering=65536)
    try:
        function = load(settings)
    except BaseException:
        traceback.print_exc()
        return 1
    link.sendall(wire.pack({"ready": True})[0])
    while True:
        frame = wire.read(stream)
        if frame is None:
            return 0
        reply = answer(function, settings, *frame)
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            pass  # a handler may have closed them
        for part in wire.pack(*reply):
            link.sendall(part)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
