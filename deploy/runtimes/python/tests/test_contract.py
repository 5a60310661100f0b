"""The contract of README.md, line by line, against the real server."""

import http.client
import json
import re
import signal
import socket
import time

import pytest
from conftest import Gate, Gone, ROOT

HELLO = """
def hello(event, context):
    print(event)
    return "Hello world!"
"""
ECHO = """
def handler(event, context):
    return event['data']
"""
RAISING = """
def handler(event, context):
    raise RuntimeError('the secret of this failure')
"""
DESCRIBE = """
def handler(event, context):
    request = event['extensions']['request']
    shown = {key: event[key] for key in event if key not in ('data', 'extensions')}
    return {'event': shown, 'context': context, 'kind': type(event['data']).__name__, 'path': request.path,
            'query': dict(request.query), 'method': request.method, 'topic': request.get_header('event-topic'),
            'headers': dict(request.headers), 'keys': sorted(event)}
"""
PIDS = """
import os
def handler(event, context):
    return os.getpid()
"""


def described(answer):
    assert answer.status == 200
    return json.loads(answer.body)


# the functions of Kubeless's own examples


def test_hello_world(launch):
    assert launch(HELLO, FUNC_HANDLER="hello").call("GET").body == b"Hello world!"


def test_echo_of_json(launch):
    answer = launch(ECHO).call(body=b'{"hello": "world"}', headers={"Content-Type": "application/json"})
    assert json.loads(answer.body) == {"hello": "world"}
    assert answer.headers["content-type"] == "application/json"


def test_a_raising_handler_is_a_500_and_the_server_stays(launch):
    runtime = launch(RAISING)
    for _ in range(5):
        answer = runtime.call()
        assert answer.status == 500
        assert b"secret" not in answer.body
    assert runtime.call("GET", "/healthz").status == 200
    assert runtime.stderr().count("RuntimeError: the secret of this failure") == 5


@pytest.mark.parametrize("statement", ["import sys; sys.exit(3)", "raise KeyboardInterrupt()", "return object()",
                                       "return {1: object()}"])
def test_whatever_a_handler_does_in_python_is_a_500(launch, statement):
    runtime = launch("def handler(event, context):\n    %s\n" % statement, FUNC_WORKERS="1")
    workers = runtime.children()
    assert [runtime.call().status for _ in range(3)] == [500] * 3
    assert runtime.children() == workers


def test_a_worker_that_dies_is_a_500_and_is_replaced_and_its_call_not_repeated(launch, tmp_path):
    runtime = launch("""
        import os
        def handler(event, context):
            with open(os.environ['TEST_FOLDER'] + '/calls', 'a') as calls:
                calls.write('.')
            if event['data'] == b'die':
                os._exit(7)
            return 'alive'
    """, FUNC_WORKERS="1")
    assert runtime.call(body=b"die").status == 500
    assert runtime.call(body=b"x").body == b"alive"
    assert (tmp_path / "calls").read_text() == ".."


# the request: paths, methods, body, headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_methods_and_paths(launch, method):
    shown = described(launch(DESCRIBE).call(method, "/any/p%C3%A4th?q=1&r=a%20b"))
    assert (shown["method"], shown["path"], shown["query"]) == (method, "/any/p\u00e4th", {"q": "1", "r": "a b"})


def test_other_methods_are_405(launch):
    answer = launch(ECHO).call("OPTIONS")
    assert answer.status == 405 and "POST" in answer.headers["allow"]


def test_headers_become_the_event(launch):
    headers = {"event-id": "id-1", "Event-Type": "application/json", "event-time": "2026-01-02T03:04:05Z",
               "event-namespace": "kafkatriggers.kubeless.io", "event-topic": "orders", "ce-source": "/s",
               "event_id": "forged"}
    shown = described(launch(DESCRIBE).call(headers=headers))
    assert shown["event"] == {"event-id": "id-1", "event-type": "application/json",
                              "event-time": "2026-01-02T03:04:05Z",
                              "event-namespace": "kafkatriggers.kubeless.io"}
    assert shown["topic"] == "orders" and shown["headers"]["Ce-Source"] == "/s"
    assert shown["keys"] == ["data", "event-id", "event-namespace", "event-time", "event-type", "extensions"]


def test_absent_headers_are_none(launch):
    assert set(described(launch(DESCRIBE).call("GET"))["event"].values()) == {None}


def test_context(launch):
    runtime = launch(DESCRIBE, FUNC_TIMEOUT="2.5", FUNC_RUNTIME="python3.11", FUNC_MEMORY_LIMIT="128Mi")
    assert described(runtime.call())["context"] == {"function-name": "handler", "timeout": 2.5,
                                                    "runtime": "python3.11", "memory-limit": "128Mi"}


def test_the_default_timeout_is_180(launch):
    assert described(launch(DESCRIBE).call())["context"]["timeout"] == 180


@pytest.mark.parametrize("content_type, body, kind", [
    ("application/json", b'{"a": 1}', "dict"), ("application/json", b"[1]", "list"), ("application/json", b"", "NoneType"),
    ("application/json; charset=utf-8", b'{"a": 1}', "bytes"), ("application/x-www-form-urlencoded", b"a=1", "bytes"),
    (None, b'{"a": 1}', "bytes"), (None, None, "bytes"),
])
def test_only_exactly_json_is_parsed(launch, content_type, body, kind):
    headers = {"Content-Type": content_type} if content_type else {}
    assert described(launch(DESCRIBE).call(body=body, headers=headers))["kind"] == kind


def test_broken_json_is_400_and_the_handler_is_not_called(launch):
    runtime = launch(RAISING)
    assert runtime.call(body=b"{", headers={"Content-Type": "application/json"}).status == 400
    assert "RuntimeError" not in runtime.stderr()


def test_binary_bodies_come_back_byte_for_byte(launch):
    runtime, body = launch(ECHO), bytes(range(256)) * 5000
    assert runtime.call(body=body).body == body
    assert runtime.call(body=iter([body[:7], body[7:]]), headers={"Transfer-Encoding": "chunked"}).body == body


def test_a_body_over_the_limit_is_413(launch):
    runtime = launch("def handler(event, context):\n    return str(len(event['data']))\n", FUNC_MEMFILE_MAX="100000")
    assert runtime.call(body=b"x" * 100000).body == b"100000"
    assert runtime.call(body=b"x" * 100001).status == 413
    assert runtime.call(body=b"x" * 5000000).status == 413
    chunks = iter([b"x" * 60000] * 3)
    started = time.monotonic()
    assert runtime.call(body=chunks, headers={"Transfer-Encoding": "chunked"}).status == 413
    assert time.monotonic() - started < 3, "it waited for more of a body that was whole"
    assert runtime.call(body=b"x").body == b"1"


def test_the_requests_own_json_reader_has_the_same_limit(launch):
    runtime = launch("def handler(event, context):\n    return len(event['extensions']['request'].json)\n")
    body = json.dumps(["x" * 300000, 2])
    assert runtime.call(body=body, headers={"Content-Type": "application/json"}).body == b"2"


# the result


@pytest.mark.parametrize("value, body, content_type", [
    ("'text \u00e4'", "text \u00e4".encode(), "text/html; charset=UTF-8"), ("b'\\x00\\xff'", b"\x00\xff", "text/html; charset=UTF-8"),
    ("{'a': [1]}", b'{"a": [1]}', "application/json"), ("[1, 'x']", b'[1, "x"]', "application/json"),
    ("{}", b"{}", "application/json"), ("7", b"7", "application/json"), ("True", b"true", "application/json"),
    ("None", b"", "text/html; charset=UTF-8"), ("''", b"", "text/html; charset=UTF-8"),
])
def test_return_values(launch, value, body, content_type):
    answer = launch("def handler(event, context):\n    return %s\n" % value).call()
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, body, content_type)


@pytest.mark.parametrize("verb", ["return", "raise"])
def test_response_objects_are_returned_or_raised(launch, verb):
    runtime = launch("""
        import bottle
        def handler(event, context):
            %s bottle.HTTPResponse(status=201, body={'made': 1}, headers={'X-Own': 'yes', 'Location': '/1'})
    """ % verb)
    answer = runtime.call()
    assert (answer.status, json.loads(answer.body)) == (201, {"made": 1})
    assert (answer.headers["x-own"], answer.headers["location"]) == ("yes", "/1")
    assert answer.headers["content-type"] == "application/json"


def test_an_empty_status_leaves_the_connection_usable(launch):
    runtime = launch("import bottle\ndef handler(event, context):\n    return bottle.HTTPResponse(status=204)\n")
    connection = runtime.connect()
    assert [runtime.call(connection=connection).status for _ in range(3)] == [204] * 3


def test_a_header_with_a_line_break_is_a_500(launch):
    runtime = launch("""
        import bottle
        def handler(event, context):
            return bottle.HTTPResponse(headers={'X-Own': 'a\\r\\nSet-Cookie: b=c'})
    """)
    assert runtime.call().status == 500


# health, metrics, log


def test_health_even_when_every_worker_is_busy(launch, gate):
    runtime = launch(Gate.CODE + "def handler(event, context):\n    pass_gate()\n", FUNC_WORKERS="1", **gate.env)
    busy = runtime.background()
    gate.arrived()
    health = runtime.call("GET", "/healthz")
    assert (health.status, health.body) == (200, b"OK")
    gate.release()
    assert busy.join().status == 200


def test_metrics(launch):
    runtime = launch("def handler(event, context):\n    return 1 // len(event['data'])\n")
    for body in (b"x", b"x", b""):
        runtime.call(body=body)
    runtime.call("PUT", body=b"x")
    answer = runtime.call("GET", "/metrics")
    text = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'function_calls_total{method="POST"} 3.0' in text and 'function_calls_total{method="PUT"} 1.0' in text
    assert 'function_failures_total{method="POST"} 1.0' in text
    assert 'function_duration_seconds_count{method="POST"} 3.0' in text
    assert 'function_duration_seconds_bucket{le="+Inf",method="POST"} 3.0' in text


def test_one_log_line_per_request_without_payload_or_query(launch):
    runtime = launch(ECHO)
    runtime.call(path="/a%0Ab?token=hush", body=b"payload-of-mine")
    line = runtime.line("HTTP/1.1")
    assert re.match(r'^127\.0\.0\.1 - - \[.+\] "POST /a%0Ab HTTP/1\.1" 200 15 \d+\.\d+$', line)
    runtime.call("GET", "/healthz")
    assert "/healthz" in runtime.lines.get(timeout=30)


def test_the_log_can_be_off_and_the_ready_line_is_alone(launch):
    runtime = launch(ECHO, ready=False, FUNC_ACCESS_LOG="0")
    first = runtime.lines.get(timeout=30)
    runtime.host, runtime.port = "127.0.0.1", int(first.rsplit(":", 1)[1])
    runtime.call()
    assert runtime.stop() == 0
    assert first.startswith("kubeless-runtime: listening on 127.0.0.1:")
    assert runtime.lines.get(timeout=30) is None


# time-out


def test_timeout_is_408_kills_what_the_handler_started_and_disturbs_no_other_call(launch, gate):
    runtime = launch(Gate.CODE + """
import subprocess
def handler(event, context):
    if event['data'] == b'hang':
        pass_gate(str(subprocess.Popen(['sleep', '1000']).pid))
    return 'fine'
""", FUNC_TIMEOUT="0.5", FUNC_WORKERS="2", **gate.env)
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
    assert 'function_failures_total{method="POST"} 1.0' in runtime.call("GET", "/metrics").body.decode()


def test_a_handler_that_refuses_to_end_is_stopped_and_called_once(launch, tmp_path):
    runtime = launch("""
        import os, signal
        def handler(event, context):
            with open(os.environ['TEST_FOLDER'] + '/calls', 'a') as calls:
                calls.write('.')
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                try:
                    while True:
                        pass
                except BaseException:
                    pass
    """, FUNC_TIMEOUT="0.2", FUNC_WORKERS="1")
    assert [runtime.call().status for _ in range(3)] == [408] * 3
    assert (tmp_path / "calls").read_text() == "..."


# load, connections


def test_200_calls_on_one_connection_without_stalls(launch):
    runtime = launch(ECHO)
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
    runtime = launch(ECHO)

    def caller(number):
        connection = runtime.connect()
        return [runtime.call(body=b"%d-%d" % (number, i), connection=connection).body for i in range(20)]

    from conftest import Background

    callers = [Background(lambda n=number: caller(n)) for number in range(16)]
    for number, each in enumerate(callers):
        assert each.join() == [b"%d-%d" % (number, i) for i in range(20)]
    assert len(runtime.children()) == 2


def test_the_module_is_imported_once_per_worker(launch):
    runtime = launch("count = 0\ndef handler(event, context):\n    global count\n    count += 1\n    return count\n",
                     FUNC_WORKERS="1")
    assert [runtime.call().body for _ in range(3)] == [b"1", b"2", b"3"]


def test_beyond_the_waiting_room_503_without_a_call(launch, gate, tmp_path):
    runtime = launch(Gate.CODE + "def handler(event, context):\n    pass_gate()\n", FUNC_WORKERS="1",
                     FUNC_MAX_WAITING="0", **gate.env)
    busy = runtime.background()
    gate.arrived()
    assert runtime.call().status == 503
    gate.release()
    assert busy.join().status == 200
    assert 'function_calls_total{method="POST"} 1.0' in runtime.call("GET", "/metrics").body.decode()


def test_a_caller_that_left_the_queue_is_not_served(launch, gate, tmp_path):
    runtime = launch(Gate.CODE + """
def handler(event, context):
    with open(os.environ['TEST_FOLDER'] + '/ids', 'a') as ids:
        ids.write(event['event-id'] + '\\n')
    if event['event-id'] == 'first':
        pass_gate()
""", FUNC_WORKERS="1", **gate.env)
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
    runtime = launch(Gate.CODE + "def handler(event, context):\n    pass_gate()\n    return 'finished'\n", **gate.env)
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
    runtime = launch(Gate.CODE + "def handler(event, context):\n    pass_gate()\n", FUNC_SHUTDOWN_GRACE="1", **gate.env)
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


def test_kill_9_of_the_server_leaves_no_children(launch, gate):
    runtime = launch(Gate.CODE + "def handler(event, context):\n    pass_gate()\n", FUNC_WORKERS="3", **gate.env)
    running = runtime.background()
    gate.arrived()
    workers = [Gone(pid) for pid in runtime.children()]
    assert len(workers) == 3
    runtime.process.kill()
    for worker in workers:
        worker.wait()
    with pytest.raises((http.client.HTTPException, OSError)):
        running.join()


@pytest.mark.parametrize("code", ["import no_such_module_here", "other = 1", "def handler(:"])
def test_a_module_that_cannot_be_loaded_ends_the_server(launch, code):
    runtime = launch(code, ready=False)
    assert runtime.process.wait(30) == 1
    assert "Traceback" in runtime.stderr() and "cannot load handler" in runtime.stderr()


def test_bad_settings_end_the_server(launch):
    runtime = launch(ECHO, ready=False, FUNC_TIMEOUT="soon")
    assert runtime.process.wait(30) == 2
    assert "FUNC_TIMEOUT" in runtime.stderr()


def test_an_explicit_file(launch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "beside.py").write_text("WORD = 'beside'\n")
    runtime = launch("import beside\ndef handler(event, context):\n    return beside.WORD\n", file="elsewhere/own.py",
                     KUBELESS_FUNC_PATH=str(tmp_path / "elsewhere" / "own.py"))
    assert runtime.call().body == b"beside"


def test_the_functions_packages_do_not_replace_the_servers(launch, tmp_path):
    packages = tmp_path / "lib" / "python" / "site-packages"
    packages.mkdir(parents=True)
    for name in ("click", "uvicorn", "bottle"):
        (packages / (name + ".py")).write_text("raise ImportError('not the server\\'s own')\n")
    (packages / "mine.py").write_text("WORD = 'mine'\n")
    runtime = launch("import mine\ndef handler(event, context):\n    return mine.WORD\n", PYTHONPATH=str(packages))
    assert runtime.call().body == b"mine"


# the project's example functions


EXAMPLES = ROOT.parents[2] / "config" / "examples" / "functions"


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="only in the project's tree")
def test_the_projects_examples(launch, tmp_path):
    hello = launch("", KUBELESS_FUNC_PATH=str(EXAMPLES / "hello.py"))
    assert hello.call().body == b"Hello world!"
    witness = tmp_path / "witness"
    flights = launch("", KUBELESS_FUNC_PATH=str(EXAMPLES / "flights.py"), WITNESS_FILE=str(witness))
    assert json.loads(flights.call(headers={"event-id": "a"}).body) == {"ok": True}
    assert json.loads(flights.call(headers={"event-id": "b"}).body) == {"ok": True}
    assert witness.read_text().split() == ["a", "b"]
