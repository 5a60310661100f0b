"""What only the Node runtime does: README.md's words about Node. What every runtime does is in ../../contract."""

import gzip
import http.client
import json
import os
import socket
import subprocess
import time

import pytest
from functions import COUNTING, DESCRIBE, ECHO, GATED, RAISING
from harness import EXAMPLES, FOLDER, ONE_AT_A_TIME

JSON = {"Content-Type": "application/json"}
EVENT = "module.exports = { handler: ({ data, extensions: { request, response } }, context) => { %s } };"


def described(answer):
    assert answer.status == 200
    return json.loads(answer.body)


# the function


def test_a_module_that_is_the_function(launch):
    assert launch("module.exports = () => 'itself';", FUNC_HANDLER="whatever").call().body == b"itself"


def test_an_es_module(launch, tmp_path):
    (tmp_path / "own.mjs").write_text("export async function handler() { return 'from an ES module'; }\n")
    runtime = launch("", KUBELESS_FUNC_PATH=str(tmp_path / "own.js"))
    assert runtime.call().body == b"from an ES module"


def test_a_forgotten_promise_ends_nothing(launch):
    runtime = launch(EVENT % "Promise.reject(new Error('forgotten')); return 'fine';", FUNC_WORKERS="1")
    workers = runtime.children()
    assert [runtime.call().body for _ in range(3)] == [b"fine"] * 3
    assert runtime.children() == workers


@pytest.mark.parametrize("statement", ["return Promise.reject(new Error('later'));", "throw undefined;", "return 1n;",
                                       "const a = {}; a.a = a; return a;", "response.status(1000); return 'x';",
                                       "response.set('x-own', 'a\\r\\nSet-Cookie: b=c'); return 'x';"])
def test_whatever_a_handler_does_in_javascript_is_a_500(launch, statement):
    runtime = launch(EVENT % statement, FUNC_WORKERS="1")
    workers = runtime.children()
    answers = [runtime.call() for _ in range(3)]
    assert [answer.status for answer in answers] == [500] * 3
    assert {answer.body for answer in answers} == {b"Internal Server Error"}
    assert runtime.children() == workers


# the request


@pytest.mark.parametrize("content_type, body, kind", [
    ("application/json", b'{"a": 1}', "object"), ("application/json", b"[1]", "array"), ("application/json", b"7", "number"),
    ("application/json; charset=utf-8", b'{"a": 1}', "object"), ("application/x-www-form-urlencoded", b"a=1", "string"),
    ("application/json", b"", "object"), ("application/vnd.api+json", b"{}", "string"), (None, b'{"a": 1}', "string"),
    (None, None, "object"),
])
def test_json_is_parsed_and_all_else_is_text(launch, content_type, body, kind):
    headers = {"Content-Type": content_type} if content_type else {}
    assert described(launch(DESCRIBE).call(body=body, headers=headers))["kind"] == kind


def test_an_empty_body_is_an_empty_object(launch):
    assert described(launch(ECHO).call(body=b"", headers=JSON)) == {}
    assert described(launch(ECHO).call("GET")) == {}


def test_the_request_is_an_express_request_with_its_raw_body(launch):
    code = EVENT % "return [request.body.toString('hex'), request.get('X-Own'), request.ip === undefined, request.query];"
    answer = launch(code).call(path="/?a[b]=c&d=1&d=2", body=b"\x00\xff", headers={"X-Own": "yes"})
    assert described(answer) == ["00ff", "yes", True, {"a": {"b": "c"}, "d": ["1", "2"]}]


def test_a_compressed_body_is_bounded_by_its_whole_size(launch):
    runtime = launch(EVENT % "return String(data.length);", REQ_MB_LIMIT="0.1")
    encoded = {"Content-Encoding": "gzip"}
    assert runtime.call(body=gzip.compress(b"x" * 50000), headers=encoded).body == b"50000"
    assert runtime.call(body=gzip.compress(b"x" * 10000000), headers=encoded).status == 413
    assert runtime.call(body=b"no gzip", headers=encoded).status == 400
    assert runtime.call(body=b"x").body == b"1"


MULTIPART = {"Content-Type": "multipart/form-data; boundary=cut"}
FORM = b"--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n%s\r\n--cut--\r\n"
COLLECT = EVENT % """return new Promise((resolve, reject) => {
  let size = 0;
  request.on('data', (part) => { size += part.length; });
  request.on('end', () => resolve({ size, data }));
  request.on('error', reject);
});"""


def test_a_multipart_body_is_a_stream_for_the_functions_own_parser(launch):
    runtime, body = launch(COLLECT), FORM % (b"x" * 3000000)
    assert described(runtime.call(body=body, headers=MULTIPART)) == {"size": len(body), "data": {}}
    chunked = dict(MULTIPART, **{"Transfer-Encoding": "chunked"})
    assert described(runtime.call(body=iter([body[:99], body[99:]]), headers=chunked))["size"] == len(body)


def test_a_caller_that_breaks_off_a_multipart_body_costs_its_own_call_only(launch):
    runtime = launch(COLLECT, FUNC_WORKERS="1", FUNC_CONCURRENCY="2")
    for number in range(5):
        with socket.create_connection((runtime.host, runtime.port)) as caller:
            caller.sendall(b"POST /gone%d HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=cut\r\n"
                           b"Content-Length: 1000\r\n\r\n--cut" % number)
        assert " 499 " in runtime.line("/gone%d" % number)
    assert described(runtime.call(body=FORM % b"x", headers=MULTIPART))["data"] == {}


def test_a_function_that_does_not_read_a_multipart_body(launch):
    runtime = launch(EVENT % "return 'unread';", FUNC_WORKERS="1", FUNC_CONCURRENCY="1")
    body = FORM % (b"x" * 3000000)
    assert [runtime.call(body=body, headers=MULTIPART).body for _ in range(3)] == [b"unread"] * 3


def test_expect_continue_is_answered_before_the_body(launch):
    runtime = launch(ECHO)
    with socket.create_connection((runtime.host, runtime.port)) as caller:
        caller.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert caller.recv(1000).startswith(b"HTTP/1.1 100")
        caller.sendall(b"ok")
        assert caller.recv(1000).startswith(b"HTTP/1.1 200")
    with socket.create_connection((runtime.host, runtime.port)) as caller:
        caller.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99000000\r\n\r\n")
        assert caller.recv(1000).startswith(b"HTTP/1.1 413")


# the answer


@pytest.mark.parametrize("value, body, content_type", [
    ("'text \u00e4'", "text \u00e4".encode(), None), ("Buffer.from([0, 255])", b"\x00\xff", None),
    ("({ a: [1] })", b'{"a":[1]}', "application/json; charset=utf-8"), ("[1, 'x']", b'[1,"x"]', "application/json; charset=utf-8"),
    ("null", b"null", "application/json; charset=utf-8"), ("7", b"7", None), ("true", b"true", None),
    ("undefined", b"", None), ("''", b"", None), ("Promise.resolve('later')", b"later", None),
])
def test_return_values(launch, value, body, content_type):
    answer = launch(EVENT % ("return %s;" % value)).call()
    assert (answer.status, answer.body, answer.headers.get("content-type")) == (200, body, content_type)


def test_the_response_object(launch):
    answer = launch(EVENT % "response.status(201).set('X-Own', 'yes').json({ made: 1 });").call()
    assert (answer.status, json.loads(answer.body), answer.headers["x-own"]) == (201, {"made": 1}, "yes")


def test_an_empty_status_leaves_the_connection_usable(launch):
    runtime = launch(EVENT % "response.status(204);")
    connection = runtime.connect()
    assert [runtime.call(connection=connection).status for _ in range(3)] == [204] * 3


def test_a_function_that_closes_its_connection_costs_no_call(launch):
    runtime = launch(EVENT % "response.set('Connection', 'close'); return 'closed';", FUNC_CONCURRENCY="2", FUNC_WORKERS="1")
    assert [runtime.call().body for _ in range(20)] == [b"closed"] * 20


def test_a_failure_after_half_an_answer_is_no_whole_answer(launch):
    code = "return new Promise((resolve, reject) => response.write('half', () => setTimeout(reject, 50, new Error('then'))));"
    runtime = launch(EVENT % code, FUNC_WORKERS="1", FUNC_CONCURRENCY="2")
    for _ in range(5):
        with pytest.raises(http.client.IncompleteRead):
            runtime.call()
    assert 'function_failures_total{method="function-POST"} 5' in runtime.call("GET", "/metrics").body.decode()


def test_a_large_answer_to_a_slow_caller_is_whole(launch):
    runtime = launch(EVENT % "return 'x'.repeat(20000000);")
    connection = runtime.connect()
    connection.request("GET", "/")
    response, size = connection.getresponse(), 0
    while part := response.read(1000000):
        size += len(part)
        time.sleep(0.005)
    assert size == 20000000


def test_cors(launch):
    runtime = launch(RAISING)
    preflight = runtime.call("OPTIONS", headers={"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-own"})
    assert preflight.status == 200 and preflight.body == b""
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert preflight.headers["access-control-allow-methods"] == "PUT"
    assert preflight.headers["access-control-allow-headers"] == "x-own"
    assert "secret" not in runtime.stderr(), "the function was not called"
    assert runtime.call().headers["access-control-allow-origin"] == "*"
    own = launch(EVENT % "response.set('Access-Control-Allow-Origin', 'https://own.example'); return '';")
    assert own.call().headers["access-control-allow-origin"] == "https://own.example"


# calls at the same time


def test_one_worker_takes_many_calls_at_once(launch):
    runtime = launch("""
        let waiting = [];
        module.exports = {
          handler: () => new Promise((resolve) => {
            waiting.push(resolve);
            if (waiting.length === 20) waiting.forEach((each) => each('together'));
          }),
        };
    """, FUNC_WORKERS="1")
    calls = [runtime.background() for _ in range(20)]
    assert [call.join().body for call in calls] == [b"together"] * 20


def test_a_waiting_call_that_runs_out_of_time_leaves_its_neighbours_alone(launch, gate):
    runtime = launch("""
        module.exports = {
          handler: async ({ data }) => {
            if (data === 'hang') return new Promise(() => {});
            await passGate();
            return 'finished';
          },
        };
    """, FUNC_WORKERS="1", FUNC_TIMEOUT="1.5", **gate.env)
    hanging = runtime.background(body=b"hang")
    time.sleep(1.0)
    neighbour = runtime.background(body=b"x")
    gate.arrived()
    assert hanging.join().status == 408
    gate.release()
    assert neighbour.join().body == b"finished"


def test_after_a_time_out_the_module_is_loaded_anew(launch):
    runtime = launch(COUNTING["nodejs"] + "module.exports.hang = () => new Promise(() => {});", FUNC_WORKERS="1",
                     FUNC_TIMEOUT="0.3", FUNC_HANDLER="hang")
    first = runtime.children()
    assert runtime.call().status == 408
    assert runtime.call().status == 408
    assert not set(first) & set(runtime.children())


def test_the_queue_is_served_in_order(launch, gate):
    runtime = launch(GATED, **ONE_AT_A_TIME, **gate.env)
    calls = [runtime.background()]
    gate.arrived()
    calls.append(runtime.background())
    gate.release()
    gate.arrived()
    gate.release()
    assert [call.join().body for call in calls] == [b"finished"] * 2


# packages and examples


def test_hellowithdeps_after_the_install_phase(launch, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    source = (EXAMPLES / "hellowithdeps.js").read_text()
    env = dict(os.environ, KUBELESS_INSTALL_VOLUME=str(volume), HOME=str(tmp_path / "no-home"),
               KUBELESS_DEPS_FILE=str(EXAMPLES / "hellowithdeps-package.json"))
    subprocess.run([str(FOLDER / "nodejs" / "kubeless-install")], env=env, check=True, stdout=subprocess.DEVNULL)
    (volume / "hellowithdeps.js").write_text(source)
    assert sorted(each.name for each in volume.iterdir()) == [
        "hellowithdeps.js", "node_modules", "package-lock.json", "package.json"]
    runtime = launch("", KUBELESS_INSTALL_VOLUME=str(volume), MOD_NAME="hellowithdeps")
    assert json.loads(runtime.call(body=b'{"hello": "world"}', headers=JSON).body) == {"hello": "world", "weekday": "some day"}


def test_settings_of_npm_reach_it_and_failures_are_failures(tmp_path):
    (tmp_path / "package.json").write_text('{"dependencies": {"lodash": "4.17.21"}}')
    env = dict(os.environ, KUBELESS_INSTALL_VOLUME=str(tmp_path), NPM_REGISTRY="http://127.0.0.1:1/",
               NPM_CONFIG_EXTRA="fetch-retries:0")
    env.pop("npm_config_registry", None)
    ended = subprocess.run([str(FOLDER / "nodejs" / "kubeless-install")], env=env, capture_output=True, text=True)
    assert ended.returncode != 0 and "127.0.0.1:1" in ended.stderr


def test_hellostream(launch):
    runtime = launch("", KUBELESS_FUNC_PATH=str(EXAMPLES / "hellostream.js"), FUNC_HANDLER="foo")
    answer = runtime.call()
    assert answer.body == b"hello world!" and answer.headers["content-type"].startswith("text/event-stream")
