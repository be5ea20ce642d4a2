"""Every command that the pages show exists, with the options that it is shown with."""

import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache

import pytest

from tests.docs.pages import ROOT, Block, blocks_in, id_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SERVERS = {"uvicorn": "uvicorn", "gunicorn": "gunicorn", "hypercorn": "hypercorn"}
GIT = {"clone", "tag", "push", "commit", "switch"}


@cache
def help_of(server: str) -> str:
    """What a server says of its options."""
    command = [sys.executable, "-m", server, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    for word in words[1:]:
        name, _, extras = word.rstrip("]").partition("[")
        assert name in {".", PROJECT["name"], "uvicorn", "httpx2"}
        if extras and name != "uvicorn":
            assert {*extras.split(",")} <= {*PROJECT["optional-dependencies"]}


def check_server(server: str, words: list[str]) -> None:
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    text = help_of(server)
    assert [each for each in options if not re.search(rf"(?<![\w-]){each}(?![\w-])", text)] == []


def check(line: str) -> None:
    """Raise AssertionError if a line of a shell block can't be run as it is shown."""
    command, *words = shlex.split(line, comments=True)
    if command == "make":
        check_make(words)
    elif command == "pip":
        check_pip(words)
    elif command in SERVERS or command == "granian":
        check_server(command, words)
    elif command == "git":
        assert words[0] in GIT
    elif command == "docker":
        assert words[0] == "compose"
        assert words[-1] == "up"
        assert all((ROOT / file).is_file() for file in words[2:-1:2])
        assert set(words[1:-1:2]) == {"--file"}
    elif command == "curl":
        assert {word for word in words if word.startswith("-")} <= {"-N", "-i"}
    else:
        # An executable file of the repository, with what it is given.
        assert (ROOT / command).is_file(), f"no test knows {command!r}"
        assert (ROOT / command).stat().st_mode & 0o100


@pytest.mark.parametrize("block", blocks_in("sh"), ids=lambda b: f"{id_of(b.page)}:{b.line}")
def test_commands_exist(block: Block) -> None:
    """Each line of a shell block is a command that there is, with options that it has."""
    lines = [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]
    for line in lines:
        check(line)
    assert lines


@pytest.mark.parametrize(
    "line",
    [
        "make nothing",
        "pip install 'quattro-web[nothing]'",
        "uvicorn app:app --no-such-option 1",
        "gunicorn app:app --worker",
        "nobody-knows-this --now",
    ],
)
def test_what_does_not_exist_is_found(line: str) -> None:
    """A target, an extra, an option or a command that there is not fails the test."""
    with pytest.raises(AssertionError):
        check(line)
