"""Hello, world, from workers: the shortest program with a farm."""

import os
import platform

import trio
from _where import open_farm, parser

NAMES = ["world", "Ada", "Alonzo", "Emmy", "Grace", "Kurt"]


def greet(name: str) -> str:
    return f"hello, {name}, from process {os.getpid()} on {platform.node()}"


async def main(on: str) -> None:
    async with open_farm(on) as farm:
        greetings = await farm.map(greet, NAMES)
    for name, greeting in zip(NAMES, greetings, strict=True):
        assert greeting.startswith(f"hello, {name}, from process ")
        print(greeting)


trio.run(main, parser(__doc__).parse_args().on)
