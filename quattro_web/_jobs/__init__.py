"""Functions that run in other processes, on other machines, as children of the requests here.

`quattro_web.jobs` exports it, and nothing else of the package calls it. Only `docket_engine`
imports docket, and only `wire` imports pydantic.
"""
