"""Higher-order tasks: functions go to the workers, and the functions that they make come back.

A task gets a function and makes its derivative, which another task takes further. What comes back
is a closure that was made in a worker; here it is an ordinary function.
"""

import math
from collections.abc import Callable

import trio
from _where import open_farm, parser

Function = Callable[[float], float]
STEP = 1e-3


def derivative(f: Function) -> Function:
    """By the central difference."""

    def df(x: float) -> float:
        return (f(x + STEP) - f(x - STEP)) / (2 * STEP)

    return df


def after(f: Function, g: Function) -> Function:
    return lambda x: g(f(x))


def cube(x: float) -> float:
    return x**3


async def main(on: str) -> None:
    async with open_farm(on) as farm:
        first = await farm.map(derivative, [math.sin, math.exp, cube])
        second = await farm.map(derivative, first)
        every = await farm.map_fold_a(derivative, after, cube, [math.sin, math.cos])

    known = [(-math.sin(1), "sin"), (math.exp(1), "exp"), (6.0, "cube")]
    for (value, name), f in zip(known, second, strict=True):
        assert math.isclose(f(1.0), value, rel_tol=1e-4)
        print(f"{name}''(1) = {f(1.0):.4f}")
    assert math.isclose(every(0.5), -math.sin(math.cos(0.125)), rel_tol=1e-4)
    print(f"cos'(sin'(0.5 ** 3)) = {every(0.5):.4f}")


trio.run(main, parser(__doc__).parse_args().on)
