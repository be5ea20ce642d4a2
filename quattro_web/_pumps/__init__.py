"""Pumps, the functions that run as long as the app does, and their supervision.

`_app` starts and ends them. They call `_locks` and `_shutdown`.
"""
