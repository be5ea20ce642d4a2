"""Helpers for every other folder: scope keys, checks of arguments, where a task hangs.

Imports nothing of the package; everybody may call it.
"""
