"""Locks that let only one of many processes run a pump, and their holders.

They know no app. `_pumps` calls them, and so does the user's own lock, through `OnceLock`.
"""
