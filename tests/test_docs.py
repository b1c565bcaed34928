"""README and docs: what they show runs, and prints what they say.

The `python` blocks of a page are programs. A block whose first line is `# NAME.py` begins a program
of that name; a block without such a line goes on with the one before. A `text` block right behind
says what the program prints: `...` stands for any number of lines, and pids, addresses, line
numbers, times, sizes and interpreters may differ. A program that prints a traceback there fails;
all others succeed. Each runs in an empty folder, as a user's first one would.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import parallel

from . import support

PROJECT = Path(__file__).parent.parent
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"# (\w+\.py)\n")
VARYING = re.compile(
    r"0x[0-9a-f]+|(?:(?<=pid )|(?<=line ))\d+|[\d.]+(?= (s|ms|us|bytes)\b)|/\S+/python[\d.]*"
)
TEST = re.compile(r"`(test_\w+)`")


@dataclass
class Program:
    """What a reader would have in a file after reading that far."""

    page: Path
    name: str
    code: str = ""
    printed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.page.stem}-{self.name}"


def programs(page: Path) -> list[Program]:
    found: list[Program] = []
    for language, block in BLOCK.findall(page.read_text()):
        if language == "python":
            if named := NAME.match(block):
                found.append(Program(page, named[1]))
            found[-1].code += block + "\n\n"
        elif language == "text":
            found[-1].printed += block.splitlines()
    return found


PROGRAMS = [program for page in PAGES for program in programs(page)]


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
@pytest.mark.slow
def test_a_program_of_the_docs_prints_what_they_say(program: Program, tmp_path: Path) -> None:
    path = tmp_path / program.name
    path.write_text(program.code)
    result = support.run_program(path, cwd=tmp_path)
    output = (result.stdout + result.stderr).replace(f"{tmp_path}/", "")
    assert is_in_order(program.printed, output), output
    fails = any("Traceback (most recent call last):" in line for line in program.printed)
    assert result.returncode == fails, output


def is_in_order(expected: list[str], output: str) -> bool:
    """Whether the lines are there, one right behind the other unless `...` stands between."""
    lines = [alike(line) for line in output.splitlines()]
    pattern = "".join(
        r"(.*\n)*?" if line.strip() == "..." else re.escape(alike(line)) + r"\n"
        for line in expected
    )
    return re.search(f"^{pattern}", "\n".join([*lines, ""]), re.MULTILINE) is not None


def alike(line: str) -> str:
    """What stays the same from one run to the next."""
    return " ".join(VARYING.sub("N", line).split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_links_to_what_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_example_is_shown() -> None:
    text = "".join(page.read_text() for page in PAGES)
    for example in (PROJECT / "examples").glob("**/[!_]*.py"):
        assert str(example.relative_to(PROJECT)) in text


def test_every_public_name_is_in_the_index() -> None:
    index = (PROJECT / "docs" / "index.md").read_text()
    for name in dir(parallel):
        if str(getattr(getattr(parallel, name), "__module__", "")).startswith("parallel."):
            assert re.search(rf"\b{name}\b", index), name


def test_every_test_that_the_docs_name_exists() -> None:
    existing = {
        node.name
        for module in (PROJECT / "tests").glob("**/*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for page in PAGES:
        named = set(TEST.findall(page.read_text()))
        assert named <= existing, f"{page.name}: {sorted(named - existing)}"


def test_every_guarantee_names_a_test() -> None:
    table: list[str] = []
    for line in (PROJECT / "docs" / "semantics.md").read_text().splitlines():
        table = [*table, line] if line.startswith("|") else []
        if len(table) > 2 and "shown by" in table[0]:
            assert TEST.search(line.rsplit("|", 2)[1]), line
