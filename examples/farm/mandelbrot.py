"""The Mandelbrot set, as a PNG: rows are tasks, and are written as they come, in order.

Only what is under way is in memory, however large the picture is: `imap` reads the numbers of the
rows as it needs them, and gives the rows one after the other.
"""

import struct
import zlib
from functools import partial
from pathlib import Path
from typing import BinaryIO

import trio
from _where import open_farm, parser

MOST = 100
"""Steps after which a point counts as one of the set."""


def row(width: int, height: int, number: int) -> bytes:
    """A row of the picture: a shade for each point, the darker the later it escapes."""
    y = (number + 0.5) / height * 2.5 - 1.25
    return bytes(shade(complex((x + 0.5) / width * 3 - 2.25, y)) for x in range(width))


def shade(c: complex) -> int:
    """0 for a point of the set."""
    z = c
    for step in range(1, MOST):
        if z.real * z.real + z.imag * z.imag > 4:
            return 255 - 2 * step
        z = z * z + c
    return 0


def write_chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    """A piece of a PNG: its length, its kind, itself, its checksum."""
    crc = zlib.crc32(kind + data)
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc))


async def main(on: str, width: int, path: Path) -> None:
    height = width * 5 // 6
    inside = 0
    rows: list[int] = []
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        pack = zlib.compressobj()
        async with open_farm(on) as farm:
            async for shades in farm.imap(partial(row, width, height), range(height)):
                inside += shades.count(0)
                rows.append(hash(shades))
                write_chunk(file, b"IDAT", pack.compress(b"\0" + shades))
        write_chunk(file, b"IDAT", pack.flush())
        write_chunk(file, b"IEND", b"")

    assert rows == rows[::-1], "the set is symmetrical"
    area = inside / (width * height) * 3 * 2.5
    assert abs(area - 1.5066) < 0.1, "as others have measured it"
    print(f"{path.name}: {width} x {height} points, area of the set {area:.3f}")


line = parser(__doc__)
line.add_argument("--width", type=int, default=240)
line.add_argument("--to", type=Path, default="mandelbrot.png")
options = line.parse_args()
trio.run(main, options.on, options.width, options.to)
