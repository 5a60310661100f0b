"""The HTTP side: an ASGI application on uvicorn that hands each request to one worker process."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
import urllib.parse

import uvicorn

from . import metrics, pool

METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE"))
PLAIN = [(b"content-type", b"text/plain; charset=utf-8")]
DRAIN_SECONDS = 5.0


class TooLarge(Exception):
    """The body is over the limit."""


class Disconnected(Exception):
    """The caller went away before its request was whole."""


class App:
    def __init__(self, settings, workers):
        self._settings = settings
        self._pool = workers
        self._metrics = metrics.Metrics()

    async def __call__(self, scope, receive, send):
        started = time.perf_counter()
        method, path = scope["method"], scope["path"]
        if path == "/healthz" and method in ("GET", "HEAD"):
            status, headers, body = 200, PLAIN, b"OK"
        elif path == "/metrics" and method == "GET":
            status, headers, body = 200, [(b"content-type", metrics.CONTENT_TYPE.encode())], self._metrics.text()
        elif method not in METHODS:
            allowed = [(b"allow", b"DELETE, GET, PATCH, POST, PUT")]
            status, headers, body = 405, PLAIN + allowed, b"Method Not Allowed\n"
        else:
            try:
                status, headers, body = await self._function(scope, receive)
            except Disconnected:
                status, headers, body = 499, PLAIN, b""
        if status != 499:
            empty = status in (204, 304)
            if not empty:
                headers = headers + [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if empty or method == "HEAD" else body})
        if self._settings.access_log:
            self._log(scope, status, len(body), time.perf_counter() - started)

    async def _function(self, scope, receive):
        limit = self._settings.max_body
        try:
            body = await _read(scope, receive, limit)
        except TooLarge:
            return 413, PLAIN + [(b"connection", b"close")], b"Request body is over %d bytes\n" % limit
        head = {
            "method": scope["method"],
            "path": urllib.parse.unquote(_raw_path(scope).decode("latin-1"), "utf-8", "ignore"),  # as Bottle decodes it
            "query": scope["query_string"].decode("latin-1"),
            "version": scope["http_version"],
            "server": scope["server"] or (self._settings.host, 0),
            "peer": scope["client"][0] if scope["client"] else "",
            "headers": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
        }

        async def disconnected():
            while (await receive())["type"] != "http.disconnect":
                pass

        started = time.perf_counter()
        try:
            frame = await self._pool.call(head, body, disconnected)
        except pool.Full:
            return 503, PLAIN + [(b"retry-after", b"1")], b"Every worker is busy; the function was not called\n"
        except pool.Timeout:
            self._metrics.record(scope["method"], time.perf_counter() - started, True)
            return 408, PLAIN, b"Timeout while processing the function\n"
        except pool.WorkerDied:
            self._metrics.record(scope["method"], time.perf_counter() - started, True)
            sys.stderr.write("kubeless-runtime: a worker ended in the middle of a call\n")
            return 500, PLAIN, b"Internal Server Error\n"
        if frame is None:
            raise Disconnected()
        reply, answer = frame
        if reply["called"]:
            self._metrics.record(scope["method"], time.perf_counter() - started, reply["status"] >= 500)
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply["headers"]]
        return reply["status"], headers, answer

    def _log(self, scope, status, size, seconds):
        # The raw path is still percent-encoded, so a line cannot be torn or forged; the query may hold secrets.
        path = _raw_path(scope).decode("latin-1")
        line = '%s - - [%s] "%s %s HTTP/%s" %d %d %.6f\n' % (
            scope["client"][0] if scope["client"] else "-", time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime()),
            scope["method"], path, scope["http_version"], status, size, seconds)
        with contextlib.suppress(OSError):
            os.write(1, line.encode("utf-8", "backslashreplace"))


def _raw_path(scope):
    return (scope.get("raw_path") or b"/").partition(b"?")[0]


async def _read(scope, receive, limit):
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit:
            await _drain(scope, receive, limit)
            raise TooLarge()
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected()
    body = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > limit:
            raise TooLarge()
        return body
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            parts.clear()
            if message.get("more_body"):
                await _drain(scope, receive, limit)
            raise TooLarge()
    return b"".join(parts)


async def _drain(scope, receive, limit):
    """Reads on for a while, so that a caller still sending sees the 413 and not a reset connection."""
    if any(name == b"expect" for name, _ in scope["headers"]):
        return

    async def rest():
        left = limit + 64 * 1024 * 1024
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if not message.get("more_body"):
                return

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(rest(), DRAIN_SECONDS)


class Server(uvicorn.Server):
    """uvicorn's server with our signals (exit code 0) and our ready line."""

    ready_line = ""

    @contextlib.contextmanager
    def capture_signals(self):
        yield

    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        if self.started and not self.should_exit:
            os.write(1, self.ready_line.encode())


def listen(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


async def run(settings, env):
    """Serves until SIGTERM or SIGINT. Returns the exit code."""
    loop = asyncio.get_running_loop()
    workers = pool.Pool(settings, env)
    server = Server(uvicorn.Config(
        App(settings, workers), lifespan="off", http="httptools", ws="none", log_config=None, log_level="warning",
        access_log=False, server_header=False, proxy_headers=False, backlog=2048,
        timeout_keep_alive=settings.keep_alive, timeout_graceful_shutdown=settings.grace,
    ))
    stop = asyncio.Event()

    def on_signal():
        server.should_exit = True
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    listener = listen(settings.host, settings.port)
    try:
        starting = asyncio.ensure_future(workers.start())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            return 0
        starting.result()
        server.ready_line = "kubeless-runtime: listening on %s:%d\n" % (settings.host, listener.getsockname()[1])
        await server.serve(sockets=[listener])
        return 0
    except pool.StartFailed:
        sys.stderr.write("kubeless-runtime: cannot load %s from %s\n" % (settings.handler, settings.path))
        return 1
    finally:
        listener.close()
        await workers.close()
