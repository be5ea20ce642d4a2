"""One run of an app, from the start of its lifespan to its end: its group, its pumps, its health.

It knows requests only as those that are open (`drain.OpenRequest`). `_request` and the middleware
call it.
"""
