"""Functions that run in other processes, also on other machines, as children of requests.

`quattro_web.jobs` exports it, and nothing else of the package calls it. Only `docket_engine`
imports docket, and only `wire` imports pydantic.
"""
