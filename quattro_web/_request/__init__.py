"""One request or WebSocket connection: its task group, its body, and its response.

`exchange.Exchange` is the request; the middleware makes one for each. Calls `_app` for the run that
the request belongs to.
"""
