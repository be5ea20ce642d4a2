"""Processes that ask for their server to be stopped, each as another program runs an app."""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable

import coverage

from quattro_web._shutdown.hypercorn import HypercornWorker
from quattro_web._shutdown.signals import SignalListener, stop_server


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # at once: several processes write


def report(number: int, _: object = None) -> None:
    say(f"{multiprocessing.current_process().name} got signal {number}")


def handler_of_python() -> None:
    """A server with a signal handler, such as uvicorn."""
    signal.signal(signal.SIGTERM, report)
    say(f"asked: {stop_server()}")


def handler_of_the_loop() -> None:
    """A server with a handler in its event loop, such as hypercorn in one process."""

    async def main() -> None:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        say(f"asked: {stop_server()}")
        await stopped.wait()
        say("the loop got the signal")

    asyncio.run(main())


def _work(**_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    say(f"asked: {stop_server()}")


def _serve(**_: object) -> None:
    signal.signal(signal.SIGTERM, report)
    say(f"asked: {stop_server()}")


def _in_a_child(target: Callable[..., None]) -> None:
    signal.signal(signal.SIGTERM, report)
    context = multiprocessing.get_context("spawn")
    arguments = {"shutdown_event": context.Event()}  # named as an argument of hypercorn's is
    child = context.Process(target=target, name="child", kwargs=arguments)
    child.start()
    child.join()
    say(f"the child's status is {child.exitcode}")


def child_without_a_server() -> None:
    """A test of an app in a process of its own, by multiprocessing."""
    _in_a_child(_work)


def child_with_a_server() -> None:
    """A server in a process of its own, by multiprocessing."""
    _in_a_child(_serve)


def forked() -> None:
    """A process that was forked off a server, such as a worker of multiprocessing's."""

    async def main() -> None:
        signal.signal(signal.SIGTERM, report)
        listener = SignalListener(lambda number: say("told"), lambda: say("the time counts"))
        listener.start()
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        os.waitpid(child, 0)
        listener.stop()

    asyncio.run(main())


def forked_off_a_worker() -> None:
    """A process that was forked off a worker of hypercorn's, which ends."""
    ending = multiprocessing.Event()
    ending.set()
    HypercornWorker(ending, 0).ignore_sigterm()
    child = os.fork()
    if not child:
        signal.raise_signal(signal.SIGTERM)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    say(f"the child's status is {os.waitstatus_to_exitcode(status)}")


def another_thread() -> None:
    """A server in a thread of a larger program."""
    signal.signal(signal.SIGTERM, report)
    thread = threading.Thread(target=lambda: say(f"asked: {stop_server()}"))
    thread.start()
    thread.join()


def coverage_of_tests() -> None:
    """A test whose coverage is measured up to a SIGTERM."""
    measuring = coverage.Coverage(data_file=None, config_file=False)
    measuring.set_option("run:sigterm", True)
    measuring.start()
    assert callable(signal.getsignal(signal.SIGTERM))
    say(f"asked: {stop_server()}")
    measuring.stop()


def no_server() -> None:
    """A test client."""
    say(f"asked: {stop_server()}")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
