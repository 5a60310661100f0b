"""What every runtime does, whatever its language: the contract of README.md beside this file, against the real server."""

import http.client
import json
import re
import signal
import socket
import time

import functions
import pytest
from harness import EXAMPLES, ONE_AT_A_TIME, Background, Gone

JSON = {"Content-Type": "application/json"}


def described(answer):
    assert answer.status == 200
    return json.loads(answer.body)


# calls


def test_hello_world(launch):
    assert launch(functions.HELLO, FUNC_HANDLER="hello").call("GET").body == b"Hello world!"


def test_echo_of_json(launch):
    answer = launch(functions.ECHO).call(body=b'{"hello": "world"}', headers=JSON)
    assert json.loads(answer.body) == {"hello": "world"}
    assert answer.headers["content-type"].startswith("application/json")


def test_a_raising_handler_is_a_500_and_the_server_stays(launch):
    runtime = launch(functions.RAISING)
    workers = sorted(runtime.children())
    for _ in range(5):
        answer = runtime.call()
        assert answer.status == 500
        assert b"secret" not in answer.body
    assert runtime.call("GET", "/healthz").status == 200
    assert runtime.stderr().count("Error: the secret of this failure") == 5
    assert sorted(runtime.children()) == workers


def test_a_worker_that_dies_is_a_500_and_is_replaced_and_its_call_not_repeated(launch, tmp_path):
    runtime = launch(functions.DYING, FUNC_WORKERS="1")
    assert runtime.call(body=b"die").status == 500
    assert runtime.call(body=b"x").body == b"alive"
    assert (tmp_path / "calls").read_text() == ".."


def test_the_module_is_loaded_once_per_worker(launch):
    runtime = launch(functions.COUNTING, FUNC_WORKERS="1")
    assert [runtime.call().body for _ in range(3)] == [b"1", b"2", b"3"]


# the request: paths, methods, body, headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_methods_and_paths(launch, method):
    shown = described(launch(functions.DESCRIBE).call(method, "/any/p%C3%A4th?q=1&r=a%20b"))
    assert (shown["method"], shown["path"], shown["query"]) == (method, "/any/p\u00e4th", {"q": "1", "r": "a b"})


def test_headers_become_the_event(launch):
    headers = {"event-id": "id-1", "Event-Type": "application/json", "event-time": "2026-01-02T03:04:05Z",
               "event-namespace": "kafkatriggers.kubeless.io", "event-topic": "orders", "ce-source": "/s",
               "event_id": "forged"}
    shown = described(launch(functions.DESCRIBE).call(headers=headers))
    assert shown["event"] == {"event-id": "id-1", "event-type": "application/json",
                              "event-time": "2026-01-02T03:04:05Z",
                              "event-namespace": "kafkatriggers.kubeless.io"}
    assert shown["topic"] == "orders" and shown["headers"]["ce-source"] == "/s"
    assert shown["keys"] == ["data", "event-id", "event-namespace", "event-time", "event-type", "extensions"]


def test_absent_headers_are_nothing(launch):
    assert set(described(launch(functions.DESCRIBE).call("GET"))["event"].values()) == {None}


def test_context(launch):
    runtime = launch(functions.DESCRIBE, FUNC_TIMEOUT="2.5", FUNC_RUNTIME="some1.2", FUNC_MEMORY_LIMIT="128Mi")
    assert described(runtime.call())["context"] == {"function-name": "handler", "timeout": 2.5,
                                                    "runtime": "some1.2", "memory-limit": "128Mi"}


def test_the_default_timeout_is_180(launch):
    assert described(launch(functions.DESCRIBE).call())["context"]["timeout"] == 180


def test_broken_json_is_400_and_the_handler_is_not_called(launch):
    runtime = launch(functions.RAISING)
    assert runtime.call(body=b"{", headers=JSON).status == 400
    assert "secret" not in runtime.stderr()
    assert "function_calls_total{method=\"%s\"} 1" % (runtime.language.label % "POST") not in metrics(runtime)


def test_bodies_come_whole_however_they_are_sent(launch):
    runtime, body = launch(functions.ECHO), "all of it: \u00e4\u20ac".encode() * 20000
    assert runtime.call(body=body).body == body
    assert runtime.call(body=iter([body[:7], body[7:]]), headers={"Transfer-Encoding": "chunked"}).body == body


def test_a_body_over_the_limit_is_413(launch):
    runtime = launch(functions.LENGTH, FUNC_MEMFILE_MAX="100000", REQ_MB_LIMIT=str(100000 / 1024 / 1024))
    assert runtime.call(body=b"x" * 100000).body == b"100000"
    assert runtime.call(body=b"x" * 100001).status == 413
    assert runtime.call(body=b"x" * 5000000).status == 413
    chunks = iter([b"x" * 60000] * 3)
    started = time.monotonic()
    assert runtime.call(body=chunks, headers={"Transfer-Encoding": "chunked"}).status == 413
    assert time.monotonic() - started < 3, "it waited for more of a body that was whole"
    assert runtime.call(body=b"x").body == b"1"


# health, metrics, log


def metrics(runtime):
    return runtime.call("GET", "/metrics").body.decode()


def sample(text, name, label):
    """The value of `name` for a method, 0 if there is none."""
    found = re.search(r'^%s\{(?:le="\+Inf",)?method="%s"\} (\S+)$' % (name, re.escape(label)), text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def test_health_even_when_every_worker_is_busy(launch, gate):
    runtime = launch(functions.GATED, **ONE_AT_A_TIME, **gate.env)
    busy = runtime.background()
    gate.arrived()
    health = runtime.call("GET", "/healthz")
    assert (health.status, health.body) == (200, b"OK")
    gate.release()
    assert busy.join().status == 200


def test_metrics(launch):
    runtime = launch(functions.FRAGILE)
    for body in (b"x", b"x", b""):
        runtime.call(body=body)
    runtime.call("PUT", body=b"x")
    answer = runtime.call("GET", "/metrics")
    text, post, put = answer.body.decode(), runtime.language.label % "POST", runtime.language.label % "PUT"
    assert answer.headers["content-type"].startswith("text/plain")
    assert sample(text, "function_calls_total", post) == 3 and sample(text, "function_calls_total", put) == 1
    assert sample(text, "function_failures_total", post) == 1 and sample(text, "function_failures_total", put) == 0
    assert sample(text, "function_duration_seconds_count", post) == 3
    assert sample(text, "function_duration_seconds_bucket", post) == 3


def test_one_log_line_per_request_without_payload_or_query(launch):
    runtime = launch(functions.ECHO)
    runtime.call(path="/a%0Ab?token=hush", body=b"payload-of-mine")
    line = runtime.line("HTTP/1.1")
    assert re.match(r'^127\.0\.0\.1 - - \[.+\] "POST /a%0Ab HTTP/1\.1" 200 15 \d+\.\d+$', line)
    runtime.call("GET", "/healthz")
    assert "/healthz" in runtime.lines.get(timeout=30)


def test_the_log_can_be_off_and_the_ready_line_is_alone(launch):
    runtime = launch(functions.ECHO, ready=False, FUNC_ACCESS_LOG="0")
    first = runtime.lines.get(timeout=30)
    runtime.host, runtime.port = "127.0.0.1", int(first.rsplit(":", 1)[1])
    runtime.call()
    assert runtime.stop() == 0
    assert first.startswith("kubeless-runtime: listening on 127.0.0.1:")
    assert runtime.lines.get(timeout=30) is None


# time-out


def test_timeout_is_408_kills_what_the_handler_started_and_disturbs_no_other_call(launch, gate):
    runtime = launch(functions.HANGING, FUNC_TIMEOUT="0.5", **gate.env)
    started = time.monotonic()
    hanging = runtime.background(body=b"hang")
    grandchild = Gone(int(gate.arrived()))
    connection = runtime.connect()
    others = [runtime.call(body=b"x", connection=connection).body for _ in range(50)]
    answer = hanging.join()
    took = time.monotonic() - started
    assert answer.status == 408 and 0.5 <= took < 5
    grandchild.wait()
    assert others == [b"fine"] * 50
    assert runtime.call(body=b"x").body == b"fine"
    assert sample(metrics(runtime), "function_failures_total", runtime.language.label % "POST") == 1


def test_a_handler_that_refuses_to_end_is_stopped_and_called_once(launch, tmp_path):
    runtime = launch(functions.SPINNING, FUNC_TIMEOUT="0.5", FUNC_WORKERS="1")
    assert [runtime.call().status for _ in range(3)] == [408] * 3
    assert (tmp_path / "calls").read_text() == "..."


# load, connections


def test_200_calls_on_one_connection_without_stalls(launch):
    runtime = launch(functions.ECHO)
    connection, times = runtime.connect(), []
    for number in range(200):
        started = time.perf_counter()
        assert runtime.call(body=b"%d" % number, connection=connection).body == b"%d" % number
        times.append(time.perf_counter() - started)
        if number == 0:
            local = connection.sock.getsockname()
    assert connection.sock.getsockname() == local
    assert sorted(times)[100] < 0.035, "a delayed acknowledgement costs 40 ms"


def test_16_parallel_callers(launch):
    runtime = launch(functions.ECHO)

    def caller(number):
        connection = runtime.connect()
        return [runtime.call(body=b"%d-%d" % (number, i), connection=connection).body for i in range(20)]

    callers = [Background(lambda n=number: caller(n)) for number in range(16)]
    for number, each in enumerate(callers):
        assert each.join() == [b"%d-%d" % (number, i) for i in range(20)]
    assert len(runtime.children()) == 2


def test_beyond_the_waiting_room_503_without_a_call(launch, gate):
    runtime = launch(functions.GATED, FUNC_MAX_WAITING="0", **ONE_AT_A_TIME, **gate.env)
    busy = runtime.background()
    gate.arrived()
    assert runtime.call().status == 503
    gate.release()
    assert busy.join().status == 200
    assert sample(metrics(runtime), "function_calls_total", runtime.language.label % "POST") == 1


def test_a_caller_that_left_the_queue_is_not_served(launch, gate, tmp_path):
    runtime = launch(functions.GATED_FIRST, **ONE_AT_A_TIME, **gate.env)
    first = runtime.background(headers={"event-id": "first"})
    gate.arrived()
    with socket.create_connection((runtime.host, runtime.port)) as impatient:
        impatient.sendall(b"POST /leaver HTTP/1.1\r\nHost: x\r\nevent-id: leaver\r\nContent-Length: 0\r\n\r\n")
        impatient.shutdown(socket.SHUT_RDWR)
    assert ' 499 ' in runtime.line("/leaver")
    gate.release()
    assert first.join().status == 200
    assert runtime.call(headers={"event-id": "last"}).status == 200
    assert (tmp_path / "ids").read_text().split() == ["first", "last"]


# start and stop


def test_sigterm_finishes_the_running_call_and_exits_0(launch, gate):
    runtime = launch(functions.GATED, **gate.env)
    running = runtime.background()
    gate.arrived()
    idle = runtime.connect()
    assert runtime.call("GET", "/healthz", connection=idle).status == 200
    workers = [Gone(pid) for pid in runtime.children()]
    runtime.process.send_signal(signal.SIGTERM)
    assert idle.sock.recv(1) == b""  # the server has begun to stop: idle connections are closed
    with pytest.raises(OSError):
        socket.create_connection((runtime.host, runtime.port), timeout=30)
    gate.release()
    assert running.join().body == b"finished"
    assert runtime.process.wait(30) == 0
    for worker in workers:
        worker.wait()


def test_sigterm_gives_up_on_a_call_after_the_grace(launch, gate):
    runtime = launch(functions.GATED, FUNC_SHUTDOWN_GRACE="1", **gate.env)
    running = runtime.background()
    gate.arrived()
    workers = [Gone(pid) for pid in runtime.children()]
    runtime.process.send_signal(signal.SIGTERM)
    assert runtime.process.wait(30) == 0
    for worker in workers:
        worker.wait()
    try:
        assert running.join().status == 500
    except (http.client.HTTPException, OSError):
        pass


@pytest.mark.parametrize("function", [functions.GATED, functions.SPINNING], ids=["waiting", "spinning"])
def test_kill_9_of_the_server_leaves_no_children(launch, gate, tmp_path, function):
    runtime = launch(function, FUNC_WORKERS="3", **gate.env)
    running = runtime.background()
    if function is functions.GATED:
        gate.arrived()
    else:
        eventually(lambda: (tmp_path / "calls").exists())
    workers = [Gone(pid) for pid in runtime.children()]
    assert len(workers) == 3
    runtime.process.kill()
    for worker in workers:
        worker.wait()
    with pytest.raises((http.client.HTTPException, OSError)):
        running.join()


def eventually(condition):
    """Until the function has done something that only the file system shows."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("which", [0, 1, 2], ids=["missing import", "missing handler", "syntax"])
def test_a_module_that_cannot_be_loaded_ends_the_server(launch, language, which):
    runtime = launch(functions.BROKEN[language.name][which], ready=False)
    assert runtime.process.wait(30) == 1
    assert "Error" in runtime.stderr() and "handler from" in runtime.stderr()


def test_bad_settings_end_the_server(launch):
    runtime = launch(functions.ECHO, ready=False, FUNC_TIMEOUT="soon")
    assert runtime.process.wait(30) == 2
    assert "FUNC_TIMEOUT" in runtime.stderr()


def test_an_explicit_file(launch, language, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ("beside" + language.suffix)).write_text(functions.WORD[language.name])
    own = "elsewhere/own"
    runtime = launch(functions.BESIDE, file=own, KUBELESS_FUNC_PATH=str(tmp_path / (own + language.suffix)))
    assert runtime.call().body == b"beside"


# the examples of the project


def example(launch, language, name, handler, **env):
    return launch("", KUBELESS_FUNC_PATH=str(EXAMPLES / (name + language.suffix)), FUNC_HANDLER=handler, **env)


def test_example_helloget(launch, language):
    assert example(launch, language, "helloget", "foo").call("GET").body == b"hello world"


def test_example_hellowithdata(launch, language):
    answer = example(launch, language, "hellowithdata", "handler").call(body=b'{"it-s": "alive"}', headers=JSON)
    assert json.loads(answer.body) == {"it-s": "alive"}


def test_example_timeout(launch, language):
    assert example(launch, language, "timeout", "handler", FUNC_TIMEOUT="0.5").call().status == 408


def test_example_error(launch, language):
    runtime = example(launch, language, "error", "handler")
    assert [runtime.call().status for _ in range(2)] == [500, 500]
