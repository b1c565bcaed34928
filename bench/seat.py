"""A seat: the process that one contender sits in.

    python -m bench.seat MODULE:FUNCTION[:ARGUMENT]

It imports next to nothing itself: some contenders fork, and what a seat drags along would be
counted against them.
"""

import importlib
import os
import sys

from bench.turns import Turns


def open_turns() -> Turns:
    """Keep stdin and stdout for the runner; point descriptors 0 and 1 elsewhere.

    So a library that reads stdin or prints cannot garble the conversation, and no child holds it
    open: the copies are not inherited.
    """
    turns = Turns(os.dup(0), os.dup(1))
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    return turns


def main(target: str) -> None:
    """Take a contender's turns until the runner has no more."""
    turns = open_turns()
    module, function, *arguments = target.split(":")
    try:
        contender = importlib.import_module(f"bench.contenders.{module}")
    except ModuleNotFoundError as error:
        turns.missing(f"module {error.name or error}")
        return
    getattr(contender, function)(turns, *arguments)


if __name__ == "__main__":
    main(sys.argv[1])
