"""How the documentation is built: `make docs`."""

import builtins
import re
from importlib.metadata import version as version_of
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

project = "quattro-web"
author = "The quattro-web developers"
copyright = author
version = release = version_of("quattro-web")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
# What a program prints is not copied, and neither is a prompt.
copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"

# A name in backticks in a docstring is a link, and one that leads nowhere is a warning.
default_role = "any"
nitpicky = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
# By their names in starlette.types, and not spelt out.
autodoc_type_aliases = {name: name for name in ("ASGIApp", "Message", "Receive", "Scope", "Send")}
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are a list, as parameters are

html_theme = "furo"
pygments_dark_style = "github-dark"  # that of furo underlines what is imported
html_title = f"quattro-web {version}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

LIBRARY = "https://docs.python.org/3/library/"

# Names of others that docstrings mention, and where they are told of; an inventory of all of
# them would have to be fetched for each build.
ELSEWHERE = {
    "CancelledError": f"{LIBRARY}asyncio-exceptions.html#asyncio.CancelledError",
    "WebSocketDisconnect": "https://starlette.dev/websockets/",
    "__aexit__": "https://docs.python.org/3/reference/datamodel.html#object.__aexit__",
    "anyio.BrokenWorkerProcess": (
        "https://anyio.readthedocs.io/en/stable/api.html#anyio.BrokenWorkerProcess"
    ),
    "anyio.to_process": "https://anyio.readthedocs.io/en/stable/subprocesses.html",
    "asyncio.CancelledError": f"{LIBRARY}asyncio-exceptions.html#asyncio.CancelledError",
    "asyncio.Task": f"{LIBRARY}asyncio-task.html#asyncio.Task",
    "asyncio.Task.cancel": f"{LIBRARY}asyncio-task.html#asyncio.Task.cancel",
    "asyncio.Task.uncancel": f"{LIBRARY}asyncio-task.html#asyncio.Task.uncancel",
    "asyncio.TaskGroup": f"{LIBRARY}asyncio-task.html#asyncio.TaskGroup",
    "asyncio.TaskGroup.cancel": f"{LIBRARY}asyncio-task.html#asyncio.TaskGroup",
    "asyncio.to_thread": f"{LIBRARY}asyncio-task.html#asyncio.to_thread",
    "asyncio.loop.create_task": f"{LIBRARY}asyncio-eventloop.html#asyncio.loop.create_task",
    "concurrent.futures.Future": f"{LIBRARY}concurrent.futures.html#concurrent.futures.Future",
    "functools.partial": f"{LIBRARY}functools.html#functools.partial",
    "random.uniform": f"{LIBRARY}random.html#random.uniform",
    "redis.asyncio.Redis": "https://redis.readthedocs.io/en/stable/examples/asyncio_examples.html",
    "starlette.exceptions.HTTPException": "https://starlette.dev/exceptions/#httpexception",
}

# Words in backticks that are code and no name of anything that has a page: statements, arguments.
WORDS = {"async with", "concurrency_limit", "shared_limit", "eager_start"}


def resolve_elsewhere(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Link a name that is not ours, or show it as code; one of ours that is missing is an error."""
    del app, env
    target = str(node["reftarget"])
    builtin = getattr(builtins, target, None)
    if isinstance(builtin, type) and issubclass(builtin, BaseException):
        url = f"{LIBRARY}exceptions.html#{target}"
    else:
        url = ELSEWHERE.get(target, "")
    if url:
        return nodes.reference("", "", content, internal=False, refuri=url)
    # Signatures name types of others, and private ones of ours.
    is_ours = target.startswith("quattro") and "._" not in target
    is_word = node["reftype"] in {"class", "obj", "data"} or target in WORDS
    return content if is_word and not is_ours else None


def shorten_names(app: Sphinx, doctree: nodes.document) -> None:
    """Show the types of attributes as signatures do: without the module, which is private."""
    del app
    for text in list(doctree.findall(nodes.Text)):
        short = re.sub(r"\bquattro_(?:core|web)(?:\.\w+)*\._\w+(?:\.\w+)*\.(?=[A-Z])", "", text)
        if short != text:
            text.parent.replace(text, nodes.Text(short))


def drop_aliases(app: Sphinx, doctree: nodes.document) -> None:
    """Leave out what an ``Annotated`` is an alias of: the framework's business, and no reader's."""
    del app
    for paragraph in list(doctree.findall(nodes.paragraph)):
        if paragraph.astext().startswith("alias of Annotated["):
            paragraph.parent.remove(paragraph)


def draw_inline(app: Sphinx, doctree: nodes.document) -> None:
    """Put our own pictures into the page itself, where they have its colours, light and dark."""
    for image in list(doctree.findall(nodes.image)):
        picture = Path(app.srcdir, image["uri"])
        if picture.suffix == ".svg" and "var(--color-" in (svg := picture.read_text("utf-8")):
            html = f'<div class="picture">{svg}</div>'
            image.replace_self(nodes.raw("", html, format="html"))


def setup(app: Sphinx) -> None:
    """Resolve the names of others."""
    app.connect("doctree-read", draw_inline)
    app.connect("missing-reference", resolve_elsewhere)
    app.connect("doctree-read", drop_aliases)
    app.connect("doctree-read", shorten_names)
