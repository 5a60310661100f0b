"""Starts the real server of a runtime as a process, on a free port, with a function written to a folder of the test's own.

A pytest plugin: `pytest -p harness --runtime python`. Which runtimes there are stands in RUNTIMES and nowhere else.
"""

import collections
import http.client
import os
import pathlib
import queue
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = FOLDER.parents[1] / "config" / "examples" / "functions"
# command: starts the server in its folder; label: of a method in its metrics; gate: see Gate.
Language = collections.namedtuple("Language", "name command suffix env label gate")
RUNTIMES = {
    "python": Language("python", [sys.executable, "-m", "kubeless_runtime"], ".py", {"PYTHONDONTWRITEBYTECODE": "1"}, "%s", """
import os
def pass_gate(token="x"):
    with open(os.environ["GATE_IN"], "w") as stream:
        stream.write(token + "\\n")
    with open(os.environ["GATE_OUT"]) as stream:
        stream.read()
"""),
    "nodejs": Language("nodejs", ["node", "lib/main.js"], ".js", {}, "function-%s", """
const gates = require('fs').promises;
async function passGate(token = 'x') {
  await gates.writeFile(process.env.GATE_IN, token + '\\n');
  await gates.readFile(process.env.GATE_OUT);
}
"""),
}
# Bounds under which both run one call at a time.
ONE_AT_A_TIME = {"FUNC_WORKERS": "1", "FUNC_CONCURRENCY": "1"}
READY = re.compile(r"^kubeless-runtime: listening on (\S+):(\d+)$")
PATIENCE = 30


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()


class Runtime:
    def __init__(self, language, env, errors):
        self.language = language
        self.errors = errors
        self.lines = queue.Queue()
        self.ready_lines = []
        with open(errors, "wb") as stderr:
            self.process = subprocess.Popen(language.command, cwd=str(FOLDER / language.name), env=env,
                                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.decode().rstrip("\n"))
        self.lines.put(None)

    def line(self, wanted):
        """The next stdout line that matches; None when stdout ends first."""
        while True:
            line = self.lines.get(timeout=PATIENCE)
            if line is None or re.search(wanted, line):
                return line

    def wait_ready(self):
        line = self.line(READY)
        assert line is not None, self.stderr()
        self.host, self.port = READY.match(line).group(1), int(READY.match(line).group(2))
        return self

    def stderr(self):
        return self.errors.read_text()

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)

    def call(self, method="POST", path="/", body=None, headers=None, connection=None):
        own = connection is None
        connection = connection or self.connect()
        try:
            chunked = "Transfer-Encoding" in (headers or {})
            connection.request(method, path, body=body, headers=headers or {}, encode_chunked=chunked)
            return Answer(connection.getresponse())
        finally:
            if own:
                connection.close()

    def background(self, *args, **kwargs):
        """A call in a thread; `.join()` gives its answer or raises what it raised."""
        return Background(lambda: self.call(*args, **kwargs))

    def children(self):
        pid = self.process.pid
        return [int(p) for p in pathlib.Path("/proc/%d/task/%d/children" % (pid, pid)).read_text().split()]

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait(PATIENCE)


class Background:
    def __init__(self, work):
        self._work, self._result, self._error = work, None, None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    def join(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the call did not end"
        if self._error is not None:
            raise self._error
        return self._result


class Gone:
    """Waits for the end of a process that is not a child of this one."""

    def __init__(self, pid):
        self._fd = os.pidfd_open(pid)

    def wait(self):
        ready = select.select([self._fd], [], [], PATIENCE)[0]
        os.close(self._fd)
        assert ready, "the process lives on"


class Gate:
    """Lets a test know that a handler runs, and the handler go on when the test says so. Two named pipes."""

    CODE = """
import os
def pass_gate(token="x"):
    with open(os.environ["GATE_IN"], "w") as stream:
        stream.write(token + "\\n")
    with open(os.environ["GATE_OUT"]) as stream:
        stream.read()
"""

    def __init__(self, folder):
        self.inside, self.outside = str(folder / "in"), str(folder / "out")
        os.mkfifo(self.inside)
        os.mkfifo(self.outside)
        self.env = {"GATE_IN": self.inside, "GATE_OUT": self.outside}

    def arrived(self):
        with open(self.inside) as stream:
            return stream.readline().strip()

    def release(self):
        with open(self.outside, "w"):
            pass


def pytest_addoption(parser):
    parser.addoption("--runtime", choices=sorted(RUNTIMES), required=True, help="the runtime to test")


@pytest.fixture
def language(request):
    return RUNTIMES[request.config.getoption("--runtime")]


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path)


@pytest.fixture
def launch(tmp_path, language):
    """launch(code, ready=True, **env) -> Runtime; code is text, or one text for each language"""
    runtimes = []

    def start(code, ready=True, file="function", **extra):
        text = textwrap.dedent(code if isinstance(code, str) else code[language.name])
        text = (language.gate if "GATE_IN" in extra else "") + text
        (tmp_path / (file + language.suffix)).write_text(text)
        env = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "VIRTUAL_ENV") if key in os.environ}
        env.update(language.env, FUNC_PORT="0", FUNC_HOST="127.0.0.1", MOD_NAME="function", FUNC_HANDLER="handler",
                   FUNC_WORKERS="2", KUBELESS_INSTALL_VOLUME=str(tmp_path), TEST_FOLDER=str(tmp_path))
        env.update(extra)
        runtime = Runtime(language, env, tmp_path / ("stderr-%d" % len(runtimes)))
        runtimes.append(runtime)
        return runtime.wait_ready() if ready else runtime

    yield start
    for runtime in runtimes:
        runtime.stop()
