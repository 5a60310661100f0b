"""What the environment says. Read once; nothing else in the package reads it."""

import math
import os


class SettingsError(Exception):
    """A variable is missing or holds something that cannot be meant."""


def _number(env, name, default, kind, lowest):
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        value = kind(text)
    except ValueError:
        raise SettingsError("%s=%r is not a number" % (name, text)) from None
    if not math.isfinite(value) or value < lowest:
        raise SettingsError("%s=%r is below %s or not finite" % (name, text, lowest))
    return value


class Settings:
    def __init__(self, env=os.environ):
        self.host = env.get("FUNC_HOST") or "0.0.0.0"
        self.port = _number(env, "FUNC_PORT", 8080, int, 0)
        self.module = env.get("MOD_NAME", "")
        self.handler = env.get("FUNC_HANDLER", "")
        if not self.module or not self.handler:
            raise SettingsError("MOD_NAME and FUNC_HANDLER must name the module and the function")
        self.volume = env.get("KUBELESS_INSTALL_VOLUME") or "/kubeless"
        self.path = env.get("KUBELESS_FUNC_PATH") or os.path.join(self.volume, self.module + ".py")
        self.timeout = _number(env, "FUNC_TIMEOUT", 180.0, float, 0.001)
        self.runtime = env.get("FUNC_RUNTIME")
        self.memory_limit = env.get("FUNC_MEMORY_LIMIT")
        self.max_body = _number(env, "FUNC_MEMFILE_MAX", 100 * 1024 * 1024, int, 0)
        self.workers = _number(env, "FUNC_WORKERS", min(4, max(2, _cpus())), int, 1)
        self.max_waiting = _number(env, "FUNC_MAX_WAITING", 1000, int, 0)
        self.keep_alive = _number(env, "FUNC_KEEP_ALIVE", 75, int, 1)
        self.grace = _number(env, "FUNC_SHUTDOWN_GRACE", 25, int, 1)
        self.access_log = env.get("FUNC_ACCESS_LOG", "1") not in ("0", "false", "off", "no")

    @property
    def context(self):
        return {
            "function-name": self.handler,
            "timeout": self.timeout,
            "runtime": self.runtime,
            "memory-limit": self.memory_limit,
        }


def _cpus():
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
