"""A verification run: every problem to every solver, each a program of its own with a time limit.

What Functory was made for: 80 proof obligations to 4 provers, most done in no time, some never.
Here the problems are formulas of families whose answer is known, and the solvers are those of PySAT
(`pip install python-sat`). A task starts a solver, gives it a formula in DIMACS form, waits for at
most so many seconds, and checks the model that it claims to have found.
"""

import random
import sys
from collections.abc import Iterator
from itertools import combinations, product
from typing import NamedTuple

import trio
from _where import open_farm, parser

SOLVERS = ["cadical153", "glucose4", "minisat22"]
SOLVER = """
import sys
from pysat.formula import CNF
from pysat.solvers import Solver

with Solver(sys.argv[1], bootstrap_with=CNF(from_string=sys.stdin.read())) as solver:
    print("s SATISFIABLE" if solver.solve() else "s UNSATISFIABLE")
    print("v", *(solver.get_model() or ()))
"""

Clauses = list[list[int]]


class Problem(NamedTuple):
    """A formula: clauses of numbered variables, negative where they are negated."""

    name: str
    clauses: Clauses
    expected: str
    limit: float = 30.0
    """Seconds that a solver has."""


def pigeons(number: int, holes: int) -> Problem:
    """Each pigeon has a hole, and no two have the same: for too few holes it takes for ever."""

    def sits(pigeon: int, hole: int) -> int:
        return pigeon * holes + hole + 1

    clauses = [[sits(pigeon, hole) for hole in range(holes)] for pigeon in range(number)]
    for hole, (one, other) in product(range(holes), combinations(range(number), 2)):
        clauses.append([-sits(one, hole), -sits(other, hole)])
    answer = "SATISFIABLE" if number <= holes else "UNSATISFIABLE"
    return Problem(f"{number} pigeons, {holes} holes", clauses, answer)


def random_3sat(seed: int, variables: int, ratio: float, *, solvable: bool) -> Problem:
    """Clauses of three; all agree with one assignment, or are too many for any."""
    source = random.Random(seed)
    hidden = [source.choice((-x, x)) for x in range(1, variables + 1)]
    clauses: Clauses = []
    while len(clauses) < ratio * variables:
        clause = [source.choice((-x, x)) for x in source.sample(range(1, variables + 1), 3)]
        if not solvable or any(hidden[abs(x) - 1] == x for x in clause):
            clauses.append(clause)
    answer = "SATISFIABLE" if solvable else "UNSATISFIABLE"
    return Problem(f"3-SAT {seed}", clauses, answer)


def problems(number: int) -> Iterator[Problem]:
    """So many of each family."""
    for n in range(number):
        yield pigeons(5 + n, 5 + n)
        yield pigeons(6 + n, 5 + n)
        yield random_3sat(n, 150, 4.0, solvable=True)
        # Of the assignments of 60 variables (7 / 8) ** 600 is the share that solves 600 clauses.
        yield random_3sat(n, 60, 10.0, solvable=False)
    yield pigeons(13, 12)._replace(expected="TIMEOUT", limit=0.5)


async def solve(call: tuple[Problem, str]) -> str:
    """What this solver says of this problem."""
    problem, solver = call
    variables = max(abs(x) for clause in problem.clauses for x in clause)
    lines = [f"p cnf {variables} {len(problem.clauses)}"]
    lines += [f"{' '.join(map(str, clause))} 0" for clause in problem.clauses]
    command = [sys.executable, "-c", SOLVER, solver]
    with trio.move_on_after(problem.limit):
        stdin = "\n".join(lines).encode()
        process = await trio.run_process(command, stdin=stdin, capture_stdout=True)
        status, model = process.stdout.decode().splitlines()
        true = set(map(int, model.split()[1:]))
        assert status == "s UNSATISFIABLE" or all(true.intersection(c) for c in problem.clauses)
        return status[2:]
    return "TIMEOUT"  # leaving the block has killed the solver


async def main(on: str, number: int) -> None:
    calls = list(product(problems(number), SOLVERS))
    async with open_farm(on) as farm:
        answers = await farm.map(solve, calls)
    for (problem, solver), answer in zip(calls, answers, strict=True):
        assert answer == problem.expected, (problem.name, solver, answer)
    for answer in sorted(set(answers)):
        print(f"{answers.count(answer)} of {len(calls)} {answer.lower()}")


line = parser(__doc__)
line.add_argument("--number", type=int, default=1, help="of problems of each family")
options = line.parse_args()
trio.run(main, options.on, options.number)
