"""The script that a bare shell is sent: from there to the loader in the right Python. Pure."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from .abc import Launcher

VERSION = "{}.{}".format(*sys.version_info)
IMPLEMENTATION = sys.implementation.name

_TELL_VERSION = (
    "import sys; i = getattr(sys, 'implementation', None); "
    "sys.stdout.write('%s-%d.%d.%d' % ((i.name if i else 'cpython',) + sys.version_info[:3]))"
)

_LOAD = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; import json, os; "
    "boot = json.loads(os.environ.pop('PARALLEL_BOOT')); space = {'__name__': 'loader'}; "
    "[exec(compile(t, '<loader>', 'exec'), space) for t in boot['texts']]; space['load'](boot)"
)


def candidates_of(launcher: Launcher) -> list[str]:
    """Where a Python is looked for; `~` is the home directory there."""
    if launcher.python is not None:
        return [launcher.python]
    name = f"python{VERSION}"
    places = ("~/.local/bin", "/usr/local/bin", "/opt/homebrew/bin")
    return [name, "python3", "python", *(f"{place}/{name}" for place in places)]


def make_script(launcher: Launcher, candidates: Sequence[str], boot: dict[str, Any]) -> bytes:
    """What the shell is to do. Its mark is in two pieces, for a shell that echoes what it reads."""
    half = len(boot["mark"]) // 2
    first, second = boot["mark"][:half], boot["mark"][half:]
    boot = {**boot, "mark": [first, second]}
    quote = shlex.quote
    lines = [f"export {name}={quote(value)}" for name, value in launcher.env.items()]
    lines += ["CDPATH=", f"say() {{ printf '\\n%s%s%s\\n' {first} {second} \"$1\"; exit 1; }}"]
    if launcher.setup is not None:
        lines.append(f'eval {quote(launcher.setup)} </dev/null || say "{{\\"setup\\": $?}}"')
    if launcher.cwd is not None:
        lines.append(f"cd -- {_quote_path(launcher.cwd)} || say '{{\"cwd\": 0}}'")
    lines += [
        f"PARALLEL_BOOT={quote(json.dumps(boot))}",
        "versions= number=0",
        f"for python in {' '.join(map(_quote_path, candidates))}; do",
        f'version=$("$python" -E -s -S -c {quote(_TELL_VERSION)} </dev/null 2>/dev/null)',
        "case $version in",
        f"{IMPLEMENTATION}-{VERSION}.*)",
        f'export PARALLEL_BOOT; exec "$python" -c {quote(_LOAD)};;',
        '*-*.*.*) versions="$versions $number=$version";;',
        "esac",
        "number=$((number + 1))",
        "done",
        'say "{\\"versions\\": \\"$versions\\"}"',
    ]
    return "\n".join([*lines, ""]).encode()


def _quote_path(path: str) -> str:
    if path == "~" or path.startswith("~/"):
        return '"$HOME"' + shlex.quote(path[1:]) if path != "~" else '"$HOME"'
    return shlex.quote(path)
