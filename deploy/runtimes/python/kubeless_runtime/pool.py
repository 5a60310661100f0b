"""The worker processes: started ahead, each with one call at a time, killed on time-out and replaced.

A call is handed to a worker exactly once. Whatever happens to that worker afterwards, the call is never handed to another.
"""

import asyncio
import collections
import os
import signal
import socket
import subprocess
import sys
import threading

from . import wire

REPLACE_DELAYS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)


class Timeout(Exception):
    """The handler ran for too long and was stopped."""


class WorkerDied(Exception):
    """The worker ended in the middle of the call."""


class Full(Exception):
    """No worker is free and too many callers wait already, or waited for too long. The handler was not called."""


class StartFailed(Exception):
    """A worker ended before it had loaded the function."""


class Worker(asyncio.Protocol):
    def __init__(self, pool):
        self._pool = pool
        self._unpacker = wire.Unpacker()
        self._transport = None
        self._reply = None
        self._lock = threading.Lock()
        self._reaped = False
        self.ready = False
        self.process = None

    async def start(self):
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kubeless_runtime.worker", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True, env=self._pool.env,
            )
        threading.Thread(target=self._wait, args=(loop,), daemon=True).start()
        ours.setblocking(False)
        await loop.create_unix_connection(lambda: self, sock=ours)

    def _wait(self, loop):
        """Waits for the process to end, ends what it left in its group, reaps it."""
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            self._kill_group()
            self.process.wait()
            self._reaped = True
        try:
            loop.call_soon_threadsafe(self._exited)
        except RuntimeError:
            pass  # the loop has ended

    def _exited(self):
        # The socket's end follows, after the last reply in it; a stray descendant may hold it open, so not for ever.
        asyncio.get_running_loop().call_later(0.2, self._transport.abort)

    def _kill_group(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def kill(self):
        with self._lock:
            if not self._reaped:
                self._kill_group()

    def close(self):
        self._transport.close()

    async def call(self, head, body, timeout):
        """Runs the handler once. The worker is not reusable after any exception from here."""
        loop = asyncio.get_running_loop()
        self._reply = reply = loop.create_future()
        timer = loop.call_later(timeout, self._expire, reply)
        try:
            self._transport.writelines(wire.pack(head, body))
            return await reply
        except BaseException:
            self.kill()
            raise
        finally:
            timer.cancel()
            self._reply = None

    def _expire(self, reply):
        if not reply.done():
            self.kill()
            reply.set_exception(Timeout())

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        frame = self._unpacker.feed(data)
        if frame is None:
            return
        if not self.ready:
            self.ready = True
            self._pool.arrived(self)
        elif self._reply is not None and not self._reply.done():
            self._reply.set_result(frame)

    def connection_lost(self, error):
        self.kill()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(WorkerDied())
        self._pool.left(self)


class Pool:
    def __init__(self, settings, env):
        self.env = env
        self._size = settings.workers
        self._timeout = settings.timeout
        self._max_waiting = settings.max_waiting
        self._workers = set()
        self._idle = []
        self._waiting = collections.deque()
        self._closing = False
        self._failures = 0
        self._started = None
        self._gone = asyncio.Event()

    async def start(self):
        """Returns once every worker has loaded the function. Raises StartFailed."""
        self._started = asyncio.get_running_loop().create_future()
        for _ in range(self._size):
            await self._add()
        await self._started

    async def call(self, head, body, disconnected):
        """Runs the handler once. `disconnected()` ends when the caller has gone; a caller who went before a worker was
        free is not served. Returns None then."""
        worker = self._idle.pop() if self._idle else await self._wait(disconnected)
        if worker is None:
            return None
        frame = await worker.call(head, body, self._timeout)
        self._free(worker)
        return frame

    async def _wait(self, disconnected):
        if self._closing or len(self._waiting) >= self._max_waiting:
            raise Full()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        gone = asyncio.ensure_future(disconnected())
        try:
            await asyncio.wait((turn, gone), timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return None
            if not turn.done():
                raise Full()
            worker = turn.result()
            turn = None
            return worker
        finally:
            gone.cancel()
            if turn is not None:
                if turn.done():
                    self._free(turn.result())
                else:
                    self._waiting.remove(turn)

    def _free(self, worker):
        if worker not in self._workers:
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(worker)
                return
        self._idle.append(worker)

    async def _add(self):
        worker = Worker(self)
        self._workers.add(worker)
        try:
            await worker.start()
        except OSError as error:  # no process or no descriptor to be had at this moment
            sys.stderr.write("kubeless-runtime: cannot start a worker: %s\n" % error)
            if worker.process is not None:
                worker.kill()
            self.left(worker)

    def arrived(self, worker):
        self._failures = 0
        if self._closing:
            worker.close()
            return
        self._free(worker)
        if not self._started.done() and all(each.ready for each in self._workers):
            self._started.set_result(None)

    def left(self, worker):
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if self._closing:
            if not self._workers:
                self._gone.set()
            return
        if not worker.ready:
            if not self._started.done():
                self._started.set_exception(StartFailed())
                return
            self._failures += 1
        if self._started.done():
            delay = REPLACE_DELAYS[min(self._failures, len(REPLACE_DELAYS) - 1)]
            asyncio.get_running_loop().call_later(delay, self._replace)
        else:
            self._started.set_exception(StartFailed())

    def _replace(self):
        if not self._closing:
            self._task = asyncio.ensure_future(self._add())

    async def close(self):
        """Lets the workers end, and ends those that do not within a second."""
        self._closing = True
        for worker in list(self._workers):
            if worker.ready:
                worker.close()
            else:
                worker.kill()
        if self._workers:
            try:
                await asyncio.wait_for(self._gone.wait(), 1.0)
            except asyncio.TimeoutError:
                pass
        for worker in list(self._workers):
            worker.kill()
