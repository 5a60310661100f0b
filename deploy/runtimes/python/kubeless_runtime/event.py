"""One HTTP request to the `event` a function sees, and what it returned to one HTTP response."""

import io
import json

import bottle

JSON = "application/json"
TEXT = "text/html; charset=UTF-8"
HOP_BY_HOP = frozenset(
    ("connection", "content-length", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
     "transfer-encoding", "upgrade")
)


class BadBody(Exception):
    """Content-Type says JSON and the body is not."""


def environ(head, body):
    """The WSGI environment of a request, as `bottle.BaseRequest` reads it."""
    host, port = head["server"]
    env = {
        "REQUEST_METHOD": head["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": head["path"],
        "QUERY_STRING": head["query"],
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/" + head["version"],
        "REMOTE_ADDR": head["peer"],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in head["headers"]:
        if "_" in name or name == "transfer-encoding":
            continue  # event_id must not pass for event-id; the body is whole by now
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        env[key] = env[key] + ("; " if key == "HTTP_COOKIE" else ", ") + value if key in env else value
    env["CONTENT_LENGTH"] = str(len(body))
    return env


def build(head, body):
    """The `event` dict. Raises BadBody."""
    request = bottle.BaseRequest(environ(head, body))
    data = body
    if request.environ.get("CONTENT_TYPE") == JSON:
        try:
            data = json.loads(body) if body else None
        except (ValueError, RecursionError) as error:
            raise BadBody() from error
    header = request.environ.get
    return {
        "data": data,
        "event-id": header("HTTP_EVENT_ID"),
        "event-type": header("HTTP_EVENT_TYPE"),
        "event-time": header("HTTP_EVENT_TIME"),
        "event-namespace": header("HTTP_EVENT_NAMESPACE"),
        "extensions": {"request": request},
    }


def response(value):
    """(status, headers, body) for what a handler returned. Raises TypeError or ValueError for what cannot be sent."""
    if isinstance(value, bottle.HTTPResponse):
        if not 200 <= value.status_code <= 999:
            raise ValueError("a function cannot answer with status %d" % value.status_code)
        kind, body = _encode(value.body)
        headers = [(k, v) for k, v in value.headerlist if k.lower() not in HOP_BY_HOP]
        if "content-type" not in value.headers or (kind == JSON and value.content_type == TEXT):
            headers = [(k, v) for k, v in headers if k.lower() != "content-type"] + [("Content-Type", kind)]
        return value.status_code, headers, body
    kind, body = _encode(value)
    return 200, [("Content-Type", kind)], body


def _encode(value):
    if value is None:
        return TEXT, b""
    if isinstance(value, str):
        return TEXT, value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return TEXT, bytes(value)
    if isinstance(value, (dict, list, tuple, int, float)):
        return JSON, json.dumps(value).encode()
    if hasattr(value, "read"):
        return _encode(value.read())
    raise TypeError("a function cannot return %s" % type(value).__name__)
