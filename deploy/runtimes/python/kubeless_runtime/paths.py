"""Keeps the function's packages from replacing the server's own.

In a cluster PYTHONPATH begins with the install volume, which holds what the function's requirements.txt asked for. A
function that pins an old `click` must not break the server, so those entries leave sys.path while the server's own
libraries are imported and come back before the function's module is.
"""

import os
import sys


def take_out(volume):
    """Removes the entries of sys.path inside `volume` and returns them in order."""
    inside = [entry for entry in sys.path if _within(entry, volume)]
    sys.path[:] = [entry for entry in sys.path if entry not in inside]
    return inside


def _within(entry, volume):
    if not entry:
        return False
    entry, volume = os.path.realpath(entry), os.path.realpath(volume)
    return volume != os.sep and (entry == volume or entry.startswith(volume + os.sep))
