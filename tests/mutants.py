"""Break one module in many small ways, and print the breaks that no test of it sees.

``make mutants MODULE=quattro_core/_limits.py`` runs it. cosmic-ray makes the mutants. They are
written into a copy of the project, one after the other, and a pytest of its own runs for each, with
the tests that reach the line: the shortest ones first.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import parso.tree
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).parents[1]
IGNORED = shutil.ignore_patterns(".*", "__pycache__", "artifacts", "build", "dist", "_build")

# The tests that matter for what is in a folder; the longest one that fits counts.
TESTS = {
    "quattro_core": ["tests/core", "tests/request"],
    "quattro_core/_restart.py": ["tests/core/supervisor"],
    "quattro_core/_supervisor.py": ["tests/core/supervisor"],
    "quattro_web": ["tests/request", "tests/app"],
    "quattro_web/_app": ["tests/app", "tests/pumps", "tests/shutdown"],
    "quattro_web/_locks": ["tests/locks"],
    "quattro_web/_pumps": ["tests/pumps", "tests/app"],
    "quattro_web/_request": [
        "tests/request",
        "tests/app",
        "tests/shutdown",
        "tests/kit",
        "tests/telemetry/test_metrics.py",
    ],
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

# What other Pythons do is tested there, and types by type checkers.
_LEFT_ALONE = ("sys.version_info", "TypeVar(")

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
        if node.type != "simple_stmt" or parso.tree.search_ancestor(node, "funcdef") is None:
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


@dataclass(frozen=True)
class Place:
    """Where a module may be broken, and how.

    Attributes:
        line: Where it is.
        operator: What kind of break it is.
        occurrence: Which of its kind.
    """

    line: int
    operator: str
    occurrence: int


_MADE: dict[str, Callable[[], Any]] = {
    "RemoveStatement": RemoveStatement,
    "RemoveOperand": RemoveOperand,
    **{name: get_operator(f"core/{name}") for name in OPERATORS},
}


def places_of(code: str) -> list[Place]:
    """Return every place of a module, in the order of its lines."""
    found = []
    tree, texts = get_ast(code), code.splitlines()
    for name, operator in _MADE.items():
        places = ((n, at) for n in ast_nodes(tree) for at in operator().mutation_positions(n))
        for occurrence, (node, ((line, _), _)) in enumerate(places):
            if node.parent is not None and node.parent.type in _SIGNATURES:
                continue  # the * that begins what is keyword-only
            if not any(word in texts[line - 1] for word in _LEFT_ALONE):
                found.append(Place(line, name, occurrence))
    return sorted(found, key=lambda place: place.line)


def mutants_of(code: str, places: list[Place]) -> Iterator[Mutant]:
    """Return the mutants of a module at some places, each text once: it takes time to make one."""
    made = {code}
    for place in places:
        try:
            mutated = mutate_code(code, _MADE[place.operator](), place.occurrence)
        except AttributeError:  # cosmic-ray replaces no exception whose name has a dot in it
            continue
        if mutated is not None and mutated not in made:
            made.add(mutated)
            yield Mutant(place.line, place.operator, mutated)


def folders_of(module: str) -> list[str]:
    """Return the folders of the tests that matter for a module."""
    return TESTS[max((f for f in TESTS if Path(module).is_relative_to(f)), key=len)]


@dataclass
class Tests:
    """What is known of the tests, by their names.

    Attributes:
        seconds: How long each took.
        lines: Those of the module that each runs.
        failed: Those that fail without a mutant.
    """

    seconds: dict[str, float]
    lines: dict[str, list[int]]
    failed: list[str]


class Reach:
    """Notes which lines of a module each test runs: a plugin of pytest.

    A line is asked for once in each test, so that the tests hardly run slower. Before 3.12, Python
    can't tell; all tests count as those of each line then.
    """

    def __init__(self, module: Path) -> None:
        self.tests = Tests({}, {}, [])
        self._module = str(module)
        self._current: set[int] = set()
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            monitoring.use_tool_id(monitoring.COVERAGE_ID, "mutants")
            monitoring.register_callback(
                monitoring.COVERAGE_ID, monitoring.events.LINE, self._on_line
            )
            monitoring.set_events(monitoring.COVERAGE_ID, monitoring.events.LINE)

    def _on_line(self, code: Any, line: int) -> object:
        if code.co_filename == self._module:
            self._current.add(line)
        return sys.monitoring.DISABLE  # type: ignore[attr-defined,unused-ignore]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Begin anew with each test, its fixtures included."""
        self._current = set()
        if sys.version_info >= (3, 12):
            sys.monitoring.restart_events()
        try:
            return (yield)
        finally:
            self.tests.lines[item.nodeid] = sorted(self._current)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how long it took, and whether it failed."""
        seconds = self.tests.seconds
        seconds[report.nodeid] = seconds.get(report.nodeid, 0) + report.duration
        if report.failed:
            self.tests.failed.append(report.nodeid)


class Pytest:
    """Runs tests in forks of this process, which has imported what does not change."""

    # What the tests import: this takes longer than most of them do.
    LIBRARIES = ("anyio", "fastapi", "httpx", "hypothesis", "starlette")
    OPTIONS = (
        "-q --no-header -p no:xdist -p no:cacheprovider --timeout 20 "
        "-W ignore::pytest.PytestAssertRewriteWarning"
    ).split()

    def __init__(self, copy: Path) -> None:
        self.output = copy / "output.txt"
        self._copy = copy
        for name in self.LIBRARIES:
            importlib.import_module(name)

    def reach(self, module: str, folders: list[str]) -> Tests:
        """Run all tests, and return what they reach."""
        result = self._copy / "reach.json"
        self._run(folders, reach=(module, result), seconds=3600)
        if not result.exists():
            raise SystemExit(f"{self.output.read_text()}\nthese tests can't be run")
        return Tests(**json.loads(result.read_text()))

    def passes(self, tests: list[str], seconds: float) -> bool:
        """Tell if all of the tests pass, in that time."""
        names = self._copy / "tests.txt"
        names.write_text("\n".join(tests), encoding="utf-8")
        return self._run([f"@{names}", "--exitfirst"], seconds=seconds) == 0

    def _run(
        self, arguments: list[str], *, seconds: float, reach: tuple[str, Path] | None = None
    ) -> int | None:
        sys.stdout.flush()
        if not (pid := os.fork()):
            self._be_pytest(arguments, reach)
        # A thread would not survive the next fork.
        end = time.monotonic() + seconds
        while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # also what the tests have left behind
        if ended == (0, 0):
            os.waitpid(pid, 0)
            return None
        return os.waitstatus_to_exitcode(ended[1])

    def _be_pytest(self, arguments: list[str], reach: tuple[str, Path] | None) -> None:
        code = 70
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            output = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
            for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
                del sys.modules[name]
            sys.path.insert(0, str(self._copy))
            plugin = reach and Reach(self._copy / reach[0])
            code = pytest.main([*self.OPTIONS, *arguments], [plugin] if plugin else [])
            if reach and plugin:
                reach[1].write_text(json.dumps(asdict(plugin.tests)))
        except BaseException:  # it must not go on as the parent
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


class Statements:
    """The lines of each statement of a module; of one with a body, those of its head."""

    def __init__(self, code: str) -> None:
        self._heads: dict[int, set[int]] = {}
        self._in_functions: set[int] = set()
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._in_functions.update(range(node.body[0].lineno, (node.end_lineno or 0) + 1))
            if isinstance(node, ast.stmt | ast.excepthandler):
                body = getattr(node, "body", None)
                end = max(body[0].lineno, node.lineno + 1) if body else (node.end_lineno or 0) + 1
                for line in range(node.lineno, end):
                    self._heads[line] = set(range(node.lineno, end))

    def lines(self, line: int) -> set[int] | None:
        """Return the lines of the statement there, or nothing where an import runs it."""
        return self._heads.get(line) if line in self._in_functions else None


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
    places = every = places_of(code)
    if arguments.lines:
        first, _, last = arguments.lines.partition("-")
        places = [place for place in places if int(first) <= place.line <= int(last or first)]
    if arguments.sample and arguments.sample < len(places):
        chosen = random.Random(arguments.seed).sample(range(len(places)), arguments.sample)
        places = [places[number] for number in sorted(chosen)]
    mutants = list(mutants_of(code, places))
    print(f"{module}: {len(mutants)} mutants, from {len(every)} places", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=IGNORED)
        return _run(copy, module, code, mutants, arguments.tests or folders_of(module))


def _run(copy: Path, module: str, code: str, mutants: list[Mutant], folders: list[str]) -> int:
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)  # before the editable install of the project
    run = Pytest(copy)
    reach = run.reach(module, folders)
    if reach.failed:
        print("left out, as they fail without a mutant:", *reach.failed, sep="\n  ")
    # A mutant of the same length is written within the same second: no bytecode is kept of any.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    for kept in (copy / module).parent.glob(f"__pycache__/{Path(module).stem}.*"):
        kept.unlink()
    stem = Path(module).stem.strip("_").removesuffix("s")
    tests = [test for test in reach.lines if test not in reach.failed]
    # Those that have its name, or run little else of it, see more; a long one has to wait.
    tests.sort(key=lambda test: (reach.seconds[test] > 1, stem not in test, reach.seconds[test]))
    statements = Statements(code)
    killed = tried = 0
    unreached = []
    try:
        for mutant in mutants:
            lines = statements.lines(mutant.line)
            chosen = [
                test
                for test in tests
                if lines is None or sys.version_info < (3, 12) or lines & set(reach.lines[test])
            ]
            tried += 1
            if not chosen:
                unreached.append(mutant.line)
                continue
            (copy / module).write_text(mutant.code, encoding="utf-8")
            seconds = 30 + 3 * sum(reach.seconds[test] for test in chosen)
            if run.passes(chosen, seconds):
                print(f"\n{mutant.diff(module, code)}\n({len(chosen)} tests)", flush=True)
            else:
                killed += 1
            if sys.stderr.isatty():
                print(f"\r{tried} of {len(mutants)}\033[K\r", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("\nstopped")
    if unreached:
        print(f"\n{len(unreached)} that no test reaches, in the lines", *sorted(set(unreached)))
    if tried:
        print(f"\n{module}: {killed} of {tried} mutants killed, {killed / tried:.0%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
