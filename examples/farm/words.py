"""Word count over real text: the modules of Python's standard library, and its licence.

The texts are read here, one by one as workers need them, so the hosts need not have them. Counters
are added two at a time, on the workers: `map_fold_ac`.
"""

import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from operator import add
from pathlib import Path

import trio
from _where import open_farm, parser

LIBRARY = Path(sysconfig.get_path("stdlib"))


def count(text: str) -> Counter[str]:
    return Counter(re.findall(r"[a-z]+", text.lower()))


def texts(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        yield path.read_text(encoding="utf-8")


async def main(on: str, paths: list[Path]) -> None:
    async with open_farm(on) as farm:
        words = await farm.map_fold_ac(count, add, Counter[str](), texts(paths))
    assert words == count("\n".join(texts(paths)))
    most = ", ".join(f"{word} {number:,}" for word, number in words.most_common(5))
    print(f"{len(paths)} files, {words.total():,} words, {len(words):,} different ones: {most}")


line = parser(__doc__)
line.add_argument("paths", type=Path, nargs="*", default=sorted(LIBRARY.glob("[a-h]*.py")))
options = line.parse_args()
trio.run(main, options.on, options.paths)
