"""Break one module in many small ways, and print the breaks that no test of it sees.

``make mutants MODULE=quattro_core/_limits.py`` runs it. cosmic-ray makes the mutants. They are
written into a copy of the project, one after the other, and a pytest of its own runs for each.
"""

from __future__ import annotations

import argparse
import difflib
import os
import random
import resource
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.testing import run_tests
from cosmic_ray.work_item import TestOutcome

ROOT = Path(__file__).parents[1]
IGNORED = shutil.ignore_patterns(".*", "__pycache__", "artifacts", "build", "dist", "_build")

# The tests that matter for what is in a folder; the longest one that fits counts.
TESTS = {
    "quattro_core": ["tests/core"],
    "quattro_core/_restart.py": ["tests/core/supervisor"],
    "quattro_core/_supervisor.py": ["tests/core/supervisor"],
    "quattro_web": ["tests/request", "tests/app"],
    "quattro_web/_app": ["tests/app", "tests/pumps", "tests/shutdown"],
    "quattro_web/_locks": ["tests/locks"],
    "quattro_web/_pumps": ["tests/pumps", "tests/app"],
    "quattro_web/_request": ["tests/request"],
    "quattro_web/_shutdown": ["tests/shutdown"],
    "quattro_web/_util": ["tests/request", "tests/app", "tests/pumps"],
    "quattro_web/postgres.py": ["tests/locks"],
    "quattro_web/redis.py": ["tests/locks"],
    "quattro_web/testing": ["tests/kit"],
}

# cosmic-ray's own that break what people write. It would replace each operator by every other one,
# in types too.
OPERATORS = [
    "AddNot",
    "ExceptionReplacer",
    "NumberReplacer",
    "ReplaceAndWithOr",
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Mul_Div",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceBreakWithContinue",
    "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_IsNot_Is",
    "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_LtE_Lt",
    "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceContinueWithBreak",
    "ReplaceFalseWithTrue",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ReplaceUnaryOperator_Delete_Not",
    "ZeroIterationForLoop",
]

_SIGNATURES = frozenset({"param", "parameters"})

# A mutant may ask for memory without end.
MEMORY = 4 << 30


class RemoveStatement:
    """Remove a statement of a function: an assignment, a call, an await, a return, a raise."""

    _KINDS = frozenset(
        {"atom_expr", "await_expr", "break_stmt", "continue_stmt", "del_stmt", "expr_stmt"}
        | {"raise_stmt", "return_stmt", "yield_expr", "keyword"}
    )

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """The place of the statement, if it is one that does anything."""
        if node.type != "simple_stmt" or parso.python.tree.search_ancestor(node, "funcdef") is None:
            return
        statement = node.children[0]
        code = statement.get_code(include_prefix=False)
        is_annotation = statement.type == "expr_stmt" and "=" not in code
        is_end = code == "return None" and node.parent.children[-1] is node
        if statement.type in self._KINDS and not (code == "pass" or is_annotation or is_end):
            yield statement.start_pos, statement.end_pos

    def mutate(self, node: Any, _index: int) -> Any:
        """Put ``pass`` in its place."""
        statement = node.children[0]
        prefix = statement.get_first_leaf().prefix
        node.children[0] = parso.python.tree.Keyword("pass", statement.start_pos, prefix)
        return node


class RemoveOperand:
    """Remove one side of an ``and`` or an ``or``."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """The place of each operand."""
        if node.type in {"and_test", "or_test"}:
            for operand in node.children[::2]:
                yield operand.start_pos, operand.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Remove it, with the word that joins it to its neighbour."""
        at = max(2 * index - 1, 0)
        del node.children[at : at + 2]
        return node


@dataclass(frozen=True)
class Mutant:
    """One small break of a module.

    Attributes:
        line: Where it is.
        operator: What kind of break it is.
        code: The whole module with it.
    """

    line: int
    operator: str
    code: str

    def diff(self, path: str, code: str) -> str:
        """Return what it changes in the module."""
        lines = difflib.unified_diff(
            code.splitlines(), self.code.splitlines(), f"{path}:{self.line}", self.operator, "", ""
        )
        return "\n".join(line.rstrip("\n") for line in lines)


def mutants_of(code: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of its lines, each text once."""
    operators: dict[str, Callable[[], Any]] = {
        "RemoveStatement": RemoveStatement,
        "RemoveOperand": RemoveOperand,
        **{name: get_operator(f"core/{name}") for name in OPERATORS},
    }
    found: dict[str, Mutant] = {}
    tree = get_ast(code)
    for name, operator in operators.items():
        places = ((n, at) for n in ast_nodes(tree) for at in operator().mutation_positions(n))
        for occurrence, (node, ((line, _), _)) in enumerate(places):
            if node.parent is not None and node.parent.type in _SIGNATURES:
                continue  # the * that begins what is keyword-only
            mutated = mutate_code(code, operator(), occurrence)
            if mutated is not None and mutated != code:
                found.setdefault(mutated, Mutant(line, name, mutated))
    return sorted(found.values(), key=lambda mutant: mutant.line)


def tests_of(module: str) -> list[list[str]]:
    """Return what pytest is called with: for the files that have its name, then for the others."""
    folders = TESTS[max((f for f in TESTS if Path(module).is_relative_to(f)), key=len)]
    stem = Path(module).stem.strip("_").removesuffix("s")
    paths = [path.relative_to(ROOT) for f in folders for path in sorted((ROOT / f).rglob("test_*"))]
    own = [path.as_posix() for path in paths if path.suffix == ".py" and stem in path.stem]
    others = [*folders, *(f"--ignore={path}" for path in own)]
    return [own, others] if own else [others]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("module", help="the file of the module, from the root of the project")
    parser.add_argument("--tests", nargs="+", help="what pytest runs; else what fits the folder")
    parser.add_argument("--sample", type=int, help="how many of the mutants, chosen by chance")
    parser.add_argument("--seed", type=int, default=0, help="which of them; 0 unless it is said")
    parser.add_argument("--lines", help="the first line and the last one, as in 10-50")
    arguments = parser.parse_args()
    module: str = arguments.module
    code = (ROOT / module).read_text(encoding="utf-8")
    mutants = made = mutants_of(code)
    if arguments.lines:
        first, _, last = arguments.lines.partition("-")
        mutants = [mutant for mutant in mutants if int(first) <= mutant.line <= int(last or first)]
    if arguments.sample and arguments.sample < len(mutants):
        chosen = random.Random(arguments.seed).sample(range(len(mutants)), arguments.sample)
        mutants = [mutants[number] for number in sorted(chosen)]
    tests = [arguments.tests] if arguments.tests else tests_of(module)
    print(f"{module}: {len(mutants)} of {len(made)} mutants", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=IGNORED)
        return _run(copy, module, code, mutants, tests)


def _run(copy: Path, module: str, code: str, mutants: list[Mutant], tests: list[list[str]]) -> int:
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)  # before the editable install of the project
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    options = "-m pytest --exitfirst -q --no-header -p no:xdist --timeout 20"
    commands: dict[str, float] = {}
    for paths in tests:
        command = shlex.join([sys.executable, *options.split(), *paths])
        begin = time.monotonic()
        outcome, output = run_tests(command, None)
        if outcome is not TestOutcome.SURVIVED:
            print(output, "these tests fail without a mutant", sep="\n")
            return 1
        commands[command] = 3 * (time.monotonic() - begin) + 30  # for one that hangs all the same
    killed = tried = 0
    try:
        for mutant in mutants:
            (copy / module).write_text(mutant.code, encoding="utf-8")
            outcomes = (run_tests(*command)[0] for command in commands.items())
            survives = all(outcome is TestOutcome.SURVIVED for outcome in outcomes)
            tried += 1
            killed += not survives
            if survives:
                print(f"\n{mutant.diff(module, code)}", flush=True)
            elif sys.stderr.isatty():
                print(f"\r{tried} of {len(mutants)}\033[K\r", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("\nstopped")
    if tried:
        print(f"\n{module}: {killed} of {tried} mutants killed, {killed / tried:.0%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
