"""The keys under which the package keeps its things in an ASGI scope, and in the lifespan's state."""

from collections.abc import Mapping
from typing import Any

REQUEST = "quattro_web.request"
APP = "quattro_web.app"

# Anything that has a scope: a Request, a WebSocket, another HTTPConnection (each is a mapping of
# its scope), or the ASGI scope itself.
Connection = Mapping[str, Any]
