"""asyncio's debug mode for every test; what a run says first and last, and runs at a time."""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.limitations import PROPERTY, Limitation, line, summary

# Read by each event loop when it is made, those of the servers that tests start included.
os.environ["PYTHONASYNCIODEBUG"] = "1"
# In that mode asyncio logs each step that takes 0.1 s, which any does where the machine is busy.
logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing "))

TESTS = Path(__file__).parent
# The longest, of what has to stay together: other tests fill the time beside them.
FIRST = ("locks", "example_app/test_page.py", "example_app/test_server.py", "kit/test_plugin.py")
# By which servers stop, and those that apps have handlers for.
SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGQUIT", "SIGHUP", "SIGUSR1")
# These have a server for each test, and wait for most of their time.
EACH_ALONE = {"test_last_resort.py", "test_shutdown.py", "test_stop.py"}


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say of a run of all tests how long it takes, and what it has to leave out here."""
    if [config.rootpath / argument for argument in config.args] != [TESTS]:
        return []
    from tests.locks.kinds import POSTGRES, REDIS
    from tests.locks.services import PROGRAMS, answers
    from tests.support import browser

    missing = {"needs a browser": browser.missing()}
    for name, program, url in (("PostgreSQL", "postgres", POSTGRES), ("Redis", "redis", REDIS)):
        # One that answers is used, but a test kills only what it has started.
        missing[f"{'kills' if answers(url) else 'needs'} {name}"] = PROGRAMS[program]().missing()
    verb = "fails" if os.environ.get("CI") == "true" else "is skipped"
    return [
        "every test: about 5 minutes with two idle cores, 9 where they run one after the other",
        *(f"what {what} {verb}: {why}" for what, why in missing.items() if why),
    ]


@pytest.hookimpl(optionalhook=True)  # quattro_core is tested without pytest-xdist as well
def pytest_xdist_auto_num_workers() -> int:
    """Run one test more than there are cores: half of their time they wait for something."""
    return min((os.cpu_count() or 1) + 1, 8)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests run in parallel, keep together what shares a server, a service or a wheel."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: FIRST.index(groups[item]) if groups[item] in FIRST else len(FIRST))


def _group(item: pytest.Item) -> str:
    """Return what a test has to run with, one after the other; empty if it may run anywhere."""
    path = item.path.relative_to(TESTS)
    folder = path.parts[0]
    if folder in {"locks", "packaging"}:
        return folder
    if folder == "servers" and path.name in EACH_ALONE:
        return ""
    callspec = getattr(item, "callspec", None)
    server = callspec and callspec.params.get("server")
    if folder == "servers" and server:
        return f"{folder} {server}"
    if folder == "e2e" and server:
        return f"{path} {server}"
    return path.as_posix()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail a test that leaves a handler of a signal, or a thread of the package, to the next one.

    A watchdog whose app has ended is a thread that does no harm.
    """
    handlers, threads = _handlers(), threading.enumerate()
    yield
    assert _handlers() == handlers, "the test leaves a handler of a signal behind"
    module: Any = sys.modules.get("quattro_web._shutdown.watchdog")
    watchdogs = module.Watchdog._counting if module else []
    threads += [each._thread for each in watchdogs if each.has_app_ended]
    for thread in threading.enumerate():
        if thread not in threads and thread.name.startswith("quattro_web "):
            thread.join(10)  # the one that looks for signals ends when it looks again
            assert not thread.is_alive(), f"the test leaves {thread} behind"


def _handlers() -> list[object]:
    # Not all of them: pytest-timeout has one for SIGALRM, and puts it back when a test has failed.
    return [signal.getsignal(getattr(signal, name)) for name in SIGNALS if hasattr(signal, name)]


class _Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def errors() -> Iterator[list[logging.LogRecord]]:
    """What the package logs in the test, from warnings on."""
    recorder = _Recorder()
    logger = logging.getLogger("quattro_web")
    logger.addHandler(recorder)
    yield recorder.records
    logger.removeHandler(recorder)


@pytest.fixture
def limitation(record_property: Callable[[str, object], None]) -> Limitation:
    """Note whether a limitation of other software remains, for the end of pytest's output."""

    def note(whose: str, what: str, *, remains: bool) -> bool:
        record_property(PROPERTY, line(whose, what, remains=remains))
        return remains

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which limitations of other software the tests have met, and which are repaired."""
    reports = (report for some in terminalreporter.stats.values() for report in some)
    if lines := summary(reports):
        title = f"limitations of other software, on Python {platform.python_version()}"
        terminalreporter.section(title)
        for each in lines:
            terminalreporter.line(each)
