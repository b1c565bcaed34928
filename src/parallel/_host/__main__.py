"""The first lines of a host: read the settings, find the package, be the keeper.

Run as a file (`python -P .../_host/__main__.py DESCRIPTOR`), so that nothing is imported from where
the user happens to stand before `sys.path` is what the caller's was.
"""

import json
import os
import sys
from typing import Any


def _read_settings(descriptor: int) -> dict[str, Any]:
    """One line of JSON from the root, read byte by byte: what follows is for the fork server."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            sys.exit(0)  # the root is gone already
        line += byte
    settings: dict[str, Any] = json.loads(line)
    return settings


def main(descriptor: int) -> None:
    """Be the keeper, as told over `descriptor`, its fork server's connection to the owner."""
    settings = _read_settings(descriptor)
    sys.path[:] = settings.pop("path")
    sys.argv[1:] = []
    from parallel._host.keeper import keep  # noqa: PLC0415  # only now can it be found

    keep(descriptor, settings)


if __name__ == "__main__":
    main(int(sys.argv[1]))
