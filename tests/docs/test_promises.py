"""Each promise that the documentation makes is held by tests, which name it in their docstrings."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "promises.md"
TESTS = ROOT / "tests"
NUMBERS = r"[CRADO]\d{1,2}(?:(?:, | and )[CRADO]\d{1,2})*"
# "C3: A child may …", "R2, R4: …", also in the middle of a docstring.
NAMED = re.compile(rf"(?<![\w/]){NUMBERS}(?=:\s)")
CLAIMED = re.compile(rf"^#+ ({NUMBERS}): ", re.MULTILINE)
END = "\n## Not promised yet\n"


def claimed(page: str) -> list[str]:
    """The numbers of the promises that the page makes, by their headings, in order."""
    kept, _, _ = page.partition(END)
    return [n for numbers in CLAIMED.findall(kept) for n in re.findall(r"[CRADO]\d+", numbers)]


def named(docstring: str) -> set[str]:
    """The numbers of the promises that a docstring names."""
    return {n for numbers in NAMED.findall(docstring) for n in re.findall(r"[CRADO]\d+", numbers)}


def docstrings_of(source: str, name: str) -> Iterator[tuple[str, str]]:
    """Each test of a file with the docstrings that speak for it: its own and its class's."""
    for node in ast.parse(source, name).body:
        if isinstance(node, ast.ClassDef):
            inherited = ast.get_docstring(node) or ""
            inner = [(child, f"{node.name}::") for child in node.body]
        else:
            inherited, inner = "", [(node, "")]
        for child, prefix in inner:
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                if child.name.startswith("test"):
                    text = f"{inherited}\n{ast.get_docstring(child) or ''}"
                    yield f"{name}::{prefix}{child.name}", text


def held() -> dict[str, list[str]]:
    """The tests that name each promise."""
    tests: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        name = path.relative_to(ROOT).as_posix()
        for test, docstring in docstrings_of(path.read_text(encoding="utf-8"), name):
            for number in named(docstring):
                tests.setdefault(number, []).append(test)
    return tests


def in_order(number: str) -> tuple[int, int]:
    return "CRADO".index(number[0]), int(number[1:])


def test_every_promise_has_a_test(
    capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    """No promise of docs/promises.md is without a test that names it."""
    tests = held()
    promises = claimed(PAGE.read_text(encoding="utf-8"))
    with capsys.disabled():
        print()
        for number in sorted({*promises, *tests}, key=in_order):
            mark = "" if number in promises else "  (not promised yet)"
            print(f"  {number:>3}: {len(tests.get(number, [])):3} tests{mark}")
            for test in tests.get(number, []) if pytestconfig.get_verbosity() > 0 else []:
                print(f"         {test}")
    assert promises
    assert [number for number in promises if number not in tests] == []


def test_promises_are_made_once_and_in_order() -> None:
    """The page has each number once: all that the tests name."""
    promises = claimed(PAGE.read_text(encoding="utf-8"))
    assert promises == sorted(set(promises), key=in_order)
    assert set(promises) == set(held())


@pytest.mark.parametrize(
    ("docstring", "numbers"),
    [
        ("C3: A child.", {"C3"}),
        ("R2, R4: Two.", {"R2", "R4"}),
        ("C2 and C3: Two.", {"C2", "C3"}),
        ("One line.\n\nA1: The other one.", {"A1"}),
        ("The trap of R2 is told here, without a claim.", set()),
        ("HTTP/C3: no number.", set()),
    ],
)
def test_numbers_are_read(docstring: str, numbers: set[str]) -> None:
    """The collector reads the numbers before a colon, and no others."""
    assert named(docstring) == numbers


def test_methods_of_classes_are_found() -> None:
    """The docstring of a class speaks for each test in it."""
    source = (
        'class TestIt:\n    """C1: All."""\n    def test_a(self): ...\n    def helper(self): ...'
    )
    assert [(name, named(text)) for name, text in docstrings_of(source, "x.py")] == [
        ("x.py::TestIt::test_a", {"C1"})
    ]


def test_headings_are_claims() -> None:
    """Headings alone are claims, and only those before the part on what is not promised yet."""
    page = f"# Promises\n\n### C1: One\n\n### R2, R4: Two\n\nC9: no heading{END}\n### A7: later\n"
    assert claimed(page) == ["C1", "R2", "R4"]
