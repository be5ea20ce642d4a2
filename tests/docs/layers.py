"""What docs/internals.md shows of the code: the layers, from the imports, and the tree of files.

``python -m tests.docs.layers`` writes both anew.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "_static" / "layers.svg"
PAGE = ROOT / "docs" / "internals.md"
TREE = re.compile(r"(?<=<!-- begin tree -->\n\n```text\n).*?(?=```\n\n<!-- end -->)", re.DOTALL)
PACKAGES = {"quattro_web": "#3b6fd4", "quattro_core": "#b3541e"}

WIDTH, MARGIN, GAP, HEIGHT, LINE = 760, 16, 8, 44, 17
CHARACTERS = 6.1  # pixels, of the small text


@dataclass
class Unit:
    """A file or a folder right below a package: what stands in one box."""

    name: str
    files: list[Path]
    imports: set[str] = field(default_factory=set)

    @property
    def about(self) -> str:
        """The first sentence of its docstring."""
        return about(next((f for f in self.files if f.name == "__init__.py"), self.files[0]))


def about(path: Path) -> str:
    """Return the first sentence of the docstring of a file."""
    text = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0]
    return " ".join(text.split()).rstrip(".")


def units_of(package: str) -> dict[str, Unit]:
    """Return the boxes of a package, and which of the others each of them imports, types too."""
    units: dict[str, Unit] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if name != "__init__":
            units.setdefault(name, Unit(name, [])).files.append(path)
    for unit in units.values():
        for path in unit.files:
            names = {name.split(".")[1] for name in _imported(path, package)}
            unit.imports |= names & (units.keys() - {unit.name})
    return units


def rows_of(units: dict[str, Unit]) -> list[list[Unit]]:
    """Return the boxes from the top down: each row imports from the rows below it alone.

    Raises:
        ValueError: If some import each other in a circle.
    """
    rows: list[list[Unit]] = []
    left = dict(units)
    while left:
        row = [unit for unit in left.values() if not unit.imports & left.keys()]
        if not row:
            msg = f"a circle of imports: {', '.join(sorted(left))}"
            raise ValueError(msg)
        for unit in row:
            del left[unit.name]
        rows.insert(0, row)
    return rows


def draw() -> str:
    """Return the picture."""
    body: list[str] = []
    y = MARGIN
    for package, color in PACKAGES.items():
        body.append(_text(MARGIN, y + 12, package, 'class="pic-text" font-weight="600"'))
        y += 24
        for row in rows_of(units_of(package)):
            for some in (row[at : at + 4] for at in range(0, len(row), 4)):
                width = (WIDTH - 2 * MARGIN - GAP * (len(some) - 1)) / len(some)
                boxes = [_box(unit, width) for unit in some]
                lines = max(len(text) for text in boxes)
                height = HEIGHT + LINE * (lines - 1)
                for number, (unit, text) in enumerate(zip(some, boxes, strict=True)):
                    x = MARGIN + number * (width + GAP)
                    body.append(
                        f'<rect x="{x:g}" y="{y}" width="{width:g}" height="{height}" rx="5" '
                        f'fill="{color}"/>'
                    )
                    body.append(_text(x + 10, y + 19, unit.name, 'fill="#fff" font-weight="600"'))
                    body += [
                        _text(x + 10, y + 36 + LINE * at, line, 'fill="#fff" font-size="11"')
                        for at, line in enumerate(text)
                    ]
                y += height + GAP
        y += GAP
    body.append(
        _text(
            MARGIN,
            y + 4,
            "Each row imports from the rows below it alone; quattro_core imports the standard "
            "library, quattro_web also Starlette, filelock and platformdirs.",
            'class="pic-quiet" font-size="12"',
        )
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 16}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img" '
        'aria-label="The layers of the packages">\n<style>\n'
        "  .pic-text { fill: var(--color-foreground-primary, #1f2328); }\n"
        "  .pic-quiet { fill: var(--color-foreground-secondary, #5b6472); }\n"
        "  @media (prefers-color-scheme: dark) {\n"
        "    .pic-text { fill: var(--color-foreground-primary, #e6edf3); }\n"
        "    .pic-quiet { fill: var(--color-foreground-secondary, #a3adb8); }\n  }\n</style>\n"
    )
    return head + "\n".join(body) + "\n</svg>\n"


def tree() -> str:
    """Return the tree of the packages, with one line a file."""
    lines = []
    for package in PACKAGES:
        lines += [f"{package}/", *_branches(ROOT / package, "    ")]
    return "\n".join(lines) + "\n"


def _branches(folder: Path, indent: str) -> Iterator[str]:
    files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    folders = [path for path in folder.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    for path in sorted(folders):
        about_it = about(path / "__init__.py") if (path / "__init__.py").exists() else ""
        yield f"{indent}{path.name + '/':24} {about_it}".rstrip()
        yield from _branches(path, indent + "    ")
    for path in sorted(files):
        yield f"{indent}{path.name:{28 - len(indent)}} {about(path)}"


def _imported(path: Path, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"), path)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [node.module or ""]
            if node.module == package:  # from package import module
                found = [f"{package}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in found if name.startswith(f"{package}."))


def _box(unit: Unit, width: float) -> list[str]:
    """Return what a unit is about, in lines that fit."""
    room, lines = int((width - 16) / CHARACTERS), [""]
    for word in unit.about.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" {attributes}>{escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    PAGE.write_text(TREE.sub(lambda _: tree(), PAGE.read_text("utf-8")), encoding="utf-8")
