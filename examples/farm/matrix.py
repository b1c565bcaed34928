"""The product of two matrices of big integers: some rows to a task. Functory's second example.

The right matrix is part of the function, and so travels once to each worker; the rows of the left
one are what the tasks are made of. `map_local_fold` puts the rows of the product where they belong,
in whatever order they come.
"""

import random
import time
from functools import partial

import trio
from _where import open_farm, parser

Row = list[int]
Matrix = list[Row]
Part = tuple[int, Matrix]


def multiply(right: Matrix, part: Part) -> Part:
    """These rows, the number of the first before them, times that matrix."""
    first, rows = part
    columns = list(zip(*right, strict=True))
    return first, [
        [sum(x * y for x, y in zip(row, column, strict=True)) for column in columns] for row in rows
    ]


def put(product: Matrix, part: Part) -> Matrix:
    """The same matrix with these rows in it."""
    first, rows = part
    product[first : first + len(rows)] = rows
    return product


def apply(matrix: Matrix, vector: Row) -> Row:
    return [sum(x * y for x, y in zip(row, vector, strict=True)) for row in matrix]


async def main(on: str, size: int, bits: int, rows: int) -> None:
    source = random.Random(1)
    left, right = (
        [[source.getrandbits(bits) for _ in range(size)] for _ in range(size)] for _ in range(2)
    )
    parts = ((first, left[first : first + rows]) for first in range(0, size, rows))

    start = time.perf_counter()
    async with open_farm(on) as farm:
        empty: Matrix = [[] for _ in range(size)]
        product = await farm.map_local_fold(partial(multiply, right), put, empty, parts)
    seconds = time.perf_counter() - start

    # Freivalds' check: a wrong product passes it by one chance in 2 ** 64.
    vector = [source.getrandbits(64) for _ in range(size)]
    assert apply(product, vector) == apply(left, apply(right, vector))
    print(f"{size} x {size} integers of {bits} bits, {rows} rows a task: {seconds:.2f} s")


line = parser(__doc__)
line.add_argument("--size", type=int, default=48)
line.add_argument("--bits", type=int, default=512)
line.add_argument("--rows", type=int, default=2, help="of each task")
options = line.parse_args()
trio.run(main, options.on, options.size, options.bits, options.rows)
