"""How many one-line faults do the tests find? A seeded sample of mutants of the pure rooms, each run against its tests.

    PYTHONPATH=. python benchmarks/mutants.py --count 60 --seed 0

A mutant is one changed operator or constant inside a function: `<` for `<=`, `+` for `-`, `and` for `or`, a dropped
`not`, True for False, n + 1 for n. Messages, annotations and docstrings stay as they are. Its tests are the files of
the rooms that import the changed module, then those that reach it through other modules. A mutant is killed if one of
them fails, does not end in time, or cannot import it. Some survivors change nothing that anyone could notice
(equivalent mutants): these count as survivors here, so that the score is a lower bound.

Everything runs in a copy of the tracked files. Real data beside the checkout stands beside the copy too.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("base", "shards", "text", "tokenizer")
WHOLE_LIMIT_S = 1800  # of all tests together, without a mutant
LIMIT_S = 900  # of the tests of one mutant; compiling a kernel again takes up to a minute
SWAPPED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A change of one stretch of a file, on one line."""

    file: str
    line: int  # from 1
    start: int  # UTF-8 bytes from the beginning of the line
    stop: int
    new: str

    def apply(self, content: str) -> str:
        """The content of the file with the change."""
        lines = content.split("\n")
        line = lines[self.line - 1].encode()
        lines[self.line - 1] = (line[: self.start] + self.new.encode() + line[self.stop :]).decode()
        return "\n".join(lines)

    def describe(self, content: str) -> str:
        """Where it is, the line before and after."""
        old, new = (text.split("\n")[self.line - 1].strip() for text in (content, self.apply(content)))
        return f"{self.file}:{self.line}\n    - {old}\n    + {new}"


class Finder(ast.NodeVisitor):
    """Collects the mutants of one file."""

    def __init__(self, file: str) -> None:
        self._file, self.mutants = file, list[Mutant]()
        self._depth = 0  # functions around

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Only what a function does: no decorators, no annotations, no docstring."""
        self._depth += 1
        for statement in node.body:
            self.visit(statement)
        self._depth -= 1

    def visit_Raise(self, node: ast.Raise) -> None:
        """Messages stay."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Messages stay."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The value without the annotation."""
        if node.value:
            self.visit(node.value)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Another comparison."""
        for left, operator, right in zip(
            (node.left, *node.comparators), node.ops, node.comparators, strict=False
        ):
            if type(operator) in SWAPPED:
                self._replace_between(left, right, SWAPPED[type(operator)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """`and` for `or`."""
        other = "or" if isinstance(node.op, ast.And) else "and"
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._replace_between(left, right, other)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """`+` for `-`."""
        texts = any(
            isinstance(side, ast.JoinedStr | ast.List | ast.Tuple) or _is_text(side)
            for side in (node.left, node.right)
        )
        if isinstance(node.op, ast.Add | ast.Sub) and not texts:
            self._replace_between(node.left, node.right, "-" if isinstance(node.op, ast.Add) else "+")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """A dropped `not`."""
        if isinstance(node.op, ast.Not) and node.lineno == node.operand.lineno:
            self._add(node.lineno, node.col_offset, node.operand.col_offset, "")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """True for False, n + 1 for n."""
        if isinstance(node.value, bool):
            self._add(node.lineno, node.col_offset, node.end_col_offset or 0, str(not node.value))
        elif isinstance(node.value, int):
            self._add(node.lineno, node.col_offset, node.end_col_offset or 0, str(node.value + 1))

    def _replace_between(self, left: ast.expr, right: ast.expr, operator: str) -> None:
        if left.end_lineno == right.lineno and left.end_col_offset is not None:
            self._add(right.lineno, left.end_col_offset, right.col_offset, f" {operator} ")

    def _add(self, line: int, start: int, stop: int, new: str) -> None:
        if self._depth:
            self.mutants.append(Mutant(self._file, line, start, stop, new))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


def find_mutants(file: str) -> list[Mutant]:
    """All mutants of a file that still parse and differ from it."""
    content = (REPOSITORY / file).read_text("utf-8")
    finder = Finder(file)
    finder.visit(ast.parse(content))
    return [
        mutant for mutant in finder.mutants if _parses(mutant.apply(content)) and _differs(mutant, content)
    ]


def _parses(content: str) -> bool:
    try:
        ast.parse(content)
    except SyntaxError:  # brackets stood between the two sides
        return False
    return True


def _differs(mutant: Mutant, content: str) -> bool:
    return ast.dump(ast.parse(mutant.apply(content))) != ast.dump(ast.parse(content))


@cache
def imports(file: Path) -> frozenset[Path]:
    """The files of the package that a file imports."""
    results = set[Path]()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            path = REPOSITORY.joinpath(*name.split(".")).with_suffix(".py")
            if path.is_file():
                results.add(path)
    return frozenset(results)


def reaches(file: Path, module: Path) -> bool:
    """Whether a file imports a module, through whatever others."""
    seen, todo = set[Path](), [file]
    while todo:
        for path in imports(todo.pop()) - seen:
            seen.add(path)
            todo.append(path)
    return module in seen


@cache
def find_tests(file: str) -> tuple[str, ...]:
    """The test files of a module in the pure rooms: those that import it first, then those that reach it."""
    module = REPOSITORY / file
    tests = [test for room in ROOMS for test in sorted((REPOSITORY / "tests" / room).glob("test_*.py"))]
    reaching = [test for test in tests if reaches(test, module)]
    reaching.sort(key=lambda test: module not in imports(test))
    return tuple(str(test.relative_to(REPOSITORY)) for test in reaching)


def run_tests(copy: Path, tests: Sequence[str], limit_s: float = LIMIT_S) -> str:
    """`passed`, or why not: `failed`, `does not import`, `does not end`."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow and not cluster",
    ]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *tests], cwd=copy, env=environment, capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return "does not end"
    return {0: "passed", 1: "failed"}.get(done.returncode, "does not import")


def copy_tracked(to: Path) -> Path:
    """A copy of the files that git tracks, with the real data beside it."""
    to.mkdir(parents=True)
    if (data := REPOSITORY.parent / "shared").is_dir():
        to.with_name("shared").symlink_to(data)
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, to / name)
    return to


def choose_mutants(rooms: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """A seeded sample over all files that have tests: a file counts by its mutants."""
    files = [file for room in rooms for file in sorted((REPOSITORY / "ctllm_ray" / room).rglob("*.py"))]
    known = [str(file.relative_to(REPOSITORY)) for file in files]
    every = [mutant for file in known if find_tests(file) for mutant in find_mutants(file)]
    print(f"{len(every):,} mutants in {len(known)} files; {count} of them, seed {seed}", flush=True)
    return random.Random(seed).sample(every, min(count, len(every)))


def judge(mutants: Sequence[Mutant], jobs: int) -> Iterator[tuple[Mutant, str]]:
    """What the tests say of each mutant, in order."""
    with tempfile.TemporaryDirectory() as folder:
        copies = SimpleQueue[Path]()
        for number in range(jobs):
            copies.put(copy_tracked(Path(folder, str(number), "copy")))

        def judge_one(mutant: Mutant) -> str:
            copy = copies.get()
            path = copy / mutant.file
            content = path.read_text("utf-8")
            try:
                path.write_text(mutant.apply(content), "utf-8")
                return run_tests(copy, find_tests(mutant.file))
            finally:
                path.write_text(content, "utf-8")
                copies.put(copy)

        first = copies.get()
        every = sorted({test for mutant in mutants for test in find_tests(mutant.file)})
        if (said := run_tests(first, every, WHOLE_LIMIT_S)) != "passed":
            raise SystemExit(f"without a mutant the tests are not green ({said}): {' '.join(every)}")
        copies.put(first)
        with ThreadPoolExecutor(jobs) as pool:
            yield from zip(mutants, pool.map(judge_one, mutants), strict=True)


def main() -> None:
    """Prints each survivor, then the score."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rooms", nargs="+", default=ROOMS)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--least", type=float, default=0.85, help="exit status 1 below this score")
    options = parser.parse_args()
    started, killed = time.monotonic(), 0
    mutants = choose_mutants(options.rooms, options.count, options.seed)
    for number, (mutant, said) in enumerate(judge(mutants, options.jobs), 1):
        killed += said != "passed"
        if said == "passed":
            print(f"survived: {mutant.describe((REPOSITORY / mutant.file).read_text('utf-8'))}", flush=True)
        if number % 10 == 0:
            print(f"{number} of {len(mutants)}: {killed} killed", flush=True)
    score = killed / len(mutants)
    print(f"{killed} of {len(mutants)} killed: {score:.1%}, {time.monotonic() - started:.0f} s")
    raise SystemExit(score < options.least)


if __name__ == "__main__":
    main()
