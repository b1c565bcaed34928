"""Arguments on the command line: each is a task, and an option reaches every worker.

    python examples/farm/arguments.py --largest 1000 360 1001 999999

The arguments are numbers to be factored. The option travels with the function (`partial`), once to
each worker, not with each task. A number that has no such factors is a failure, and with
`on_error="return"` a failure is a result like others.
"""

from functools import partial
from math import prod

import trio
from _where import open_farm, parser

NUMBERS = [360, 1001, 65_537, 999_999, 2**31 - 1, 600_851_475_143]


def factors(largest: int, number: int) -> list[int]:
    """The primes that make this number, none of them larger than that."""
    found: list[int] = []
    rest, prime = number, 2
    while rest > 1:
        if prime * prime > rest:
            prime = rest
        if prime > largest:
            raise ValueError(f"{number} has a prime factor over {largest}")
        while rest % prime == 0:
            found.append(prime)
            rest //= prime
        prime += 1
    return found


async def main(on: str, numbers: list[int], largest: int) -> None:
    answers: list[list[int] | Exception]
    async with open_farm(on) as farm:
        answers = await farm.map(partial(factors, largest), numbers, on_error="return")
    for number, answer in zip(numbers, answers, strict=True):
        if isinstance(answer, Exception):
            print(answer)
        else:
            assert prod(answer) == number and max(answer, default=1) <= largest
            print(f"{number} = {' x '.join(map(str, answer))}")


line = parser(__doc__)
line.add_argument("numbers", type=int, nargs="*", default=NUMBERS)
line.add_argument("--largest", type=int, default=100_000)
options = line.parse_args()
trio.run(main, options.on, options.numbers, options.largest)
