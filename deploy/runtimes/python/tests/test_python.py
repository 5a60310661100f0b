"""What only the Python runtime does: README.md's words about Python. What every runtime does is in ../../contract."""

import json
import os
import subprocess
import sys

import pytest
from functions import DESCRIBE, ECHO
from harness import EXAMPLES, FOLDER


def described(answer):
    assert answer.status == 200
    return json.loads(answer.body)


@pytest.mark.parametrize("statement", ["import sys; sys.exit(3)", "raise KeyboardInterrupt()", "return object()",
                                       "return {1: object()}"])
def test_whatever_a_handler_does_in_python_is_a_500(launch, statement):
    runtime = launch("def handler(event, context):\n    %s\n" % statement, FUNC_WORKERS="1")
    workers = runtime.children()
    assert [runtime.call().status for _ in range(3)] == [500] * 3
    assert runtime.children() == workers


# the request: paths, methods, body, headers


def test_other_methods_are_405(launch):
    answer = launch(ECHO).call("OPTIONS")
    assert answer.status == 405 and "POST" in answer.headers["allow"]


@pytest.mark.parametrize("content_type, body, kind", [
    ("application/json", b'{"a": 1}', "dict"), ("application/json", b"[1]", "list"), ("application/json", b"", "NoneType"),
    ("application/json; charset=utf-8", b'{"a": 1}', "bytes"), ("application/x-www-form-urlencoded", b"a=1", "bytes"),
    (None, b'{"a": 1}', "bytes"), (None, None, "bytes"),
])
def test_only_exactly_json_is_parsed(launch, content_type, body, kind):
    headers = {"Content-Type": content_type} if content_type else {}
    assert described(launch(DESCRIBE).call(body=body, headers=headers))["kind"] == kind


def test_binary_bodies_come_back_byte_for_byte(launch):
    runtime, body = launch(ECHO), bytes(range(256)) * 5000
    assert runtime.call(body=body).body == body
    assert runtime.call(body=iter([body[:7], body[7:]]), headers={"Transfer-Encoding": "chunked"}).body == body


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


# packages


def test_the_functions_packages_do_not_replace_the_servers(launch, tmp_path):
    packages = tmp_path / "lib" / "python" / "site-packages"
    packages.mkdir(parents=True)
    for name in ("click", "uvicorn", "bottle"):
        (packages / (name + ".py")).write_text("raise ImportError('not the server\\'s own')\n")
    (packages / "mine.py").write_text("WORD = 'mine'\n")
    runtime = launch("import mine\ndef handler(event, context):\n    return mine.WORD\n", PYTHONPATH=str(packages))
    assert runtime.call().body == b"mine"


# the project's example functions


def test_hello_and_flights(launch, tmp_path):
    hello = launch("", KUBELESS_FUNC_PATH=str(EXAMPLES / "hello.py"))
    assert hello.call().body == b"Hello world!"
    witness = tmp_path / "witness"
    flights = launch("", KUBELESS_FUNC_PATH=str(EXAMPLES / "flights.py"), WITNESS_FILE=str(witness))
    assert json.loads(flights.call(headers={"event-id": "a"}).body) == {"ok": True}
    assert json.loads(flights.call(headers={"event-id": "b"}).body) == {"ok": True}
    assert witness.read_text().split() == ["a", "b"]


def test_hellowithdeps_after_the_install_phase(launch, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    env = dict(os.environ, KUBELESS_INSTALL_VOLUME=str(volume), PIP_DISABLE_PIP_VERSION_CHECK="1",
               KUBELESS_DEPS_FILE=str(EXAMPLES / "hellowithdeps-requirements.txt"),
               PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
    subprocess.run([str(FOLDER / "python" / "kubeless-install")], env=env, check=True, stdout=subprocess.DEVNULL)
    assert sorted(each.name for each in volume.iterdir()) == ["lib"], "what installing needed is gone"
    packages = volume / "lib" / ("python%d.%d" % sys.version_info[:2]) / "site-packages"
    runtime = launch("", KUBELESS_FUNC_PATH=str(EXAMPLES / "hellowithdeps.py"), KUBELESS_INSTALL_VOLUME=str(volume),
                     PYTHONPATH="%s:%s" % (packages, volume))
    answer = runtime.call(body=b'{"date": "2026-02-03"}', headers={"Content-Type": "application/json"})
    assert json.loads(answer.body)["weekday"] == "Tuesday"


def test_the_install_phase_fails_with_its_packages(tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("kubeless ===== nothing\n")
    env = dict(os.environ, KUBELESS_INSTALL_VOLUME=str(tmp_path), KUBELESS_DEPS_FILE=str(requirements),
               PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
    assert subprocess.run([str(FOLDER / "python" / "kubeless-install")], env=env, capture_output=True).returncode != 0
