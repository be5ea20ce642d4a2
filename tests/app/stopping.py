"""Processes that ask for their server to be stopped, each as another kind of server runs an app."""

import asyncio
import multiprocessing
import os
import signal
import sys
import time

from quattro_web._stop import stop_server


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


def _work() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    say(f"asked: {stop_server()}")


def _work_deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(f"asked: {stop_server()}")


def _in_a_worker(target: object) -> None:
    got: list[int] = []

    def note(number: int, _: object) -> None:
        got.append(number)
        report(number)

    signal.signal(signal.SIGTERM, note)
    worker = multiprocessing.get_context("spawn").Process(target=target, name="worker")  # type: ignore[arg-type]
    worker.start()
    worker.join()
    until = time.monotonic() + 10
    while not got and time.monotonic() < until:
        time.sleep(0.01)
    say(f"the worker's status is {worker.exitcode}")


def worker_without_a_handler() -> None:
    """A worker whose parent is the server, as hypercorn's."""
    _in_a_worker(_work)


def worker_that_ignores_the_signal() -> None:
    """The same, where the worker has chosen to ignore the signal."""
    _in_a_worker(_work_deaf)


def no_server() -> None:
    """A test client."""
    say(f"asked: {stop_server()}")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
