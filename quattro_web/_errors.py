"""The errors of the package."""


class NoTaskGroupError(LookupError):
    """There is no task group at hand: the call that makes one is missing, and the message names it.

    .. versionadded:: 0.1
    """
