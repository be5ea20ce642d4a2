"""How the documentation is built: `make docs`."""

from importlib.metadata import version as version_of

project = "quattro-web"
author = "The quattro-web developers"
copyright = author
version = release = version_of("quattro-web")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False

myst_heading_anchors = 3

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"quattro-web {version}"
html_copy_source = False
