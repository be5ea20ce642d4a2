"""What the installed packages import, and what importing them does: the source is unreachable."""

import textwrap
from collections.abc import Callable

import pytest

Run = Callable[[str], str]
pytestmark = pytest.mark.timeout(300)  # the first test makes a virtual environment

# Prints what importing a package changes, of the modules that were there before.
SPY = """
import importlib, sys, threading, types

def state():
    seen = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] not in {"asyncio", "contextvars", "logging", "signal", "starlette"}:
            continue
        for attribute, value in list(vars(module).items()):
            if isinstance(value, types.ModuleType):
                continue
            seen[name, attribute] = value
            if isinstance(value, type):
                for member, inner in list(vars(value).items()):
                    seen[name, attribute, member] = inner
    return seen

for name in %r:
    importlib.import_module(name)
before = state()
importlib.import_module(%r)
after = state()
changed = [key for key in before if after.get(key, before) is not before[key]]
print(changed, threading.active_count())
import asyncio, gc
print([o for o in gc.get_objects() if isinstance(o, asyncio.AbstractEventLoop)])
"""


def program(text: str) -> str:
    return textwrap.dedent(text)


def test_core_works_without_starlette(bare: Run) -> None:
    """quattro_core needs nothing but Python."""
    out = bare(
        program("""
            import asyncio, sys
            from quattro_core import TaskGroup

            async def tick(ticks):
                while True:
                    ticks.append("tick")
                    await asyncio.sleep(0)

            async def main():
                ticks = []
                async with TaskGroup(concurrency_limit=1) as tg:
                    tg.create_background_task(tick(ticks))
                    first = tg.create_task(asyncio.sleep(0, "first"))
                    second = tg.create_task(asyncio.sleep(0, "second"))
                print(first.result(), second.result(), bool(ticks))

            asyncio.run(main())
            print(sorted({"anyio", "fastapi", "starlette"} & {*sys.modules}))
        """)
    )
    assert out == "first second True\n[]\n"


def test_core_loads_the_standard_library_alone(bare: Run) -> None:
    """Importing quattro_core loads itself and modules of the standard library, no others."""
    out = bare(
        program("""
            import sys
            before = {*sys.modules}
            import quattro_core
            loaded = {name.split(".")[0] for name in {*sys.modules} - before}
            # Where a Python lacks parts of its library, 3.15 looks up here how to get them.
            loaded.discard("_missing_stdlib_info")
            print(sorted(loaded - sys.stdlib_module_names))
        """)
    )
    assert out == "['quattro_core']\n"


def test_web_works_without_fastapi(web: Run) -> None:
    """quattro_web serves a Starlette app where fastapi is not installed."""
    out = web(
        program("""
            import asyncio, sys
            from starlette.applications import Starlette
            from starlette.responses import PlainTextResponse
            from starlette.routing import Route
            from quattro_web import install, request_task_group

            async def home(request):
                task = request_task_group(request).create_task(asyncio.sleep(0, "done"))
                return PlainTextResponse(await task)

            app = Starlette(routes=[Route("/", home)])
            install(app)
            scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": [],
                     "query_string": b"", "root_path": "", "asgi": {"version": "3.0"}}

            async def receive():
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message):
                print(message.get("status", message.get("body")))

            asyncio.run(app(scope, receive, send))
            print([name for name in sys.modules if name.startswith("fastapi")])
        """)
    )
    assert out == "200\nb'done'\n[]\n"


def test_jobs_name_what_is_missing(web: Run) -> None:
    """Where docket is not installed, quattro_web.jobs says how to install it."""
    out = web(
        program("""
            try:
                import quattro_web.jobs
            except ModuleNotFoundError as exc:
                print(exc)
        """)
    )
    assert out == "quattro_web.jobs needs docket: pip install 'quattro-web[docket]'\n"


def test_fastapi_module_names_what_is_missing(web: Run) -> None:
    """quattro_web.fastapi without fastapi is an ImportError that names it."""
    out = web(
        program("""
            try:
                import quattro_web.fastapi
            except ImportError as exc:
                print("fastapi" in str(exc))
        """)
    )
    assert out == "True\n"


@pytest.mark.parametrize("package", ["quattro_core", "quattro_web"])
def test_all_is_sorted_and_complete(web: Run, package: str) -> None:
    """`__all__` is sorted, every name in it is there, and no public name is left out of it."""
    out = web(
        program(f"""
            import types, {package}
            names = {package}.__all__
            print(names == sorted(set(names)))
            public = {{n for n, v in vars({package}).items()
                      if not n.startswith("_") and not isinstance(v, types.ModuleType)}}
            print(sorted(public ^ set(names)))
        """)
    )
    assert out == "True\n[]\n"


def test_importing_core_does_no_work(bare: Run) -> None:
    """Importing quattro_core patches nothing, makes no event loop and starts no thread."""
    assert bare(SPY % (["asyncio"], "quattro_core")) == "[] 1\n[]\n"


def test_importing_web_does_no_work(web: Run) -> None:
    """Importing quattro_web patches nothing, makes no event loop and starts no thread."""
    modules = ["asyncio", "starlette.applications", "starlette.responses", "starlette.exceptions"]
    assert web(SPY % (modules, "quattro_web")) == "[] 1\n[]\n"
