"""Locks that let a pump run in one process of many, and who holds one.

They know no app. `_pumps` calls them, and so does the user's own lock, through `OnceLock`.
"""
