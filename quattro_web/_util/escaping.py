"""Escaping text from others, such as a client's path, in logs and error messages."""

from __future__ import annotations

# Characters of it that are shown: enough for a path, and no log entry of a megabyte.
MOST = 200

# Letters and symbols that look like spaces: the fillers of Hangul, and the blank of Braille.
_BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0")


# In JSON, where nothing of it has to be escaped: enough for a path that somebody copies.
MOST_IN_JSON = 1000


def shortened(text: str, most: int = MOST_IN_JSON) -> str:
    """Return *text* as it is, but from *most* characters on the rest becomes its length."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def escaped(text: str, most: int = MOST) -> str:
    r"""Return *text* on one line that only has printable characters, and not too many.

    A line feed would begin a log entry that was never made, ESC and the C1 controls speak to the
    terminal, and a bidi control shows the rest of the line in another order. They become ``\n``,
    ``\x1b`` and ``\u202e``, as in a literal of Python's, and a backslash becomes ``\\``. Letters
    of any language stay as they are, but for those that look like a space. From *most*
    characters on, the rest becomes its length.
    """
    if len(text) > most:
        return f"{escaped(text[:most], most)}... ({len(text)} characters)"
    if text.isprintable() and "\\" not in text and _BLANKS.isdisjoint(text):
        return text
    return "".join(map(_escape, text))


def _escape(char: str) -> str:
    if char.isprintable() and char != "\\" and char not in _BLANKS:
        return char
    return char.encode("unicode_escape").decode()
