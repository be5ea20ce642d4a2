"""The apps of a page, for a real server: ``uvicorn tests.docs.live:app``.

The environment names the page and the app in it. A page may run an event loop of its own, so it is
run in a thread: the server imports this in the one that it has.
"""

import os
from concurrent.futures import ThreadPoolExecutor

from tests.docs.pages import ROOT, namespace_of
from tests.support.server import Server, uvicorn

PAGE, APP = "TESTS_DOCS_PAGE", "TESTS_DOCS_APP"


def live(page: str, app: str, *options: str) -> Server:
    """Return a server of an app of a page."""
    return Server(uvicorn("tests.docs.live:app", *options), env={PAGE: page, APP: app})


if PAGE in os.environ:  # pragma: no cover - in the server's process
    with ThreadPoolExecutor(1) as thread:
        namespace = thread.submit(namespace_of, ROOT / os.environ[PAGE]).result()
    app = namespace[os.environ[APP]]
