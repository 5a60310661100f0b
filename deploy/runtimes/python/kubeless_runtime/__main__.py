"""`python -m kubeless_runtime`: reads the environment, starts the workers, serves."""

import asyncio
import os
import sys

from . import paths
from .settings import Settings, SettingsError


def main():
    try:
        settings = Settings()
    except SettingsError as error:
        sys.stderr.write("kubeless-runtime: %s\n" % error)
        return 2
    paths.take_out(settings.volume)  # the workers, with the same environment, put theirs back
    from . import server

    try:
        import uvloop
    except ImportError:
        loop = asyncio.new_event_loop()
    else:
        loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(server.run(settings, dict(os.environ)))
    except OSError as error:
        sys.stderr.write("kubeless-runtime: %s\n" % error)
        return 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.exit(code)
