"""The address of a service, such as a DSN, and messages that don't show its password."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import wraps
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote, unquote_plus

from quattro_web._locks.base import LockLostError

T = TypeVar("T")

_HIDDEN = "***"
# Characters of a password by which a piece of it is recognised, such as one that was cut off.
_PIECE = 8
_AUTHORITY = re.compile(r"[^/?#]*")
_HOST = r"(\[[^\]]*\]|[^:,\[\]]*)(:\d*)?"
_HOSTS = re.compile(rf"{_HOST}(,{_HOST})*")


class Address:
    """What a message may show of a URL, or of another DSN.

    A password with a special character that is not percent-encoded is cut in pieces by whoever
    reads the URL: one becomes the port, another the name of the database or of a setting, and what
    says that there is no such thing shows it. Such a URL is not *clear*, and neither is one in
    whose query anything follows a password: it may be the rest of it.

    Args:
        text: The URL.
        secrets: What else is a secret, where it is another DSN.
    """

    def __init__(self, text: str, secrets: Iterable[str] = ()) -> None:
        rest = text.partition("://")[2]
        found = _AUTHORITY.match(rest)
        authority = found[0] if found else ""
        user, _, hosts = authority.rpartition("@")
        beyond = rest[len(authority) :]
        self.has_hosts: bool = _HOSTS.fullmatch(hosts) is not None
        name, _, password = user.partition(":")
        path, _, query = beyond.partition("?")
        values = [value for key, value in parse_qsl(query) if is_secret(key)]
        followed = [unquote(field.partition("=")[0]) for field in query.split("&")[:-1]]
        is_cut = "@" in user + beyond or any(map(is_secret, followed))
        self.is_clear: bool = self.has_hosts and not is_cut
        given = [password, unquote(password), unquote_plus(password), *values, *secrets]
        # The name of a user tells nobody that it is the password as well.
        public = {"", name, unquote(name), hosts, path.strip("/")}
        shown = {form for secret in given for form in _forms(secret)} - public
        alternatives = "|".join(map(re.escape, sorted(shown, key=len, reverse=True)))
        self._secret = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)") if shown else None
        self._pieces = {piece for form in shown for piece in _pieces(form)}
        self._pieces -= {piece for text in public for piece in _pieces(text)}

    def clean(self, exc: Exception) -> Exception:
        """Return *exc*; or, if it may show a part of the password, another in its place.

        That has no cause and no notes: they may show it as well.
        """
        name = type(exc).__name__
        if not self.is_clear:
            msg = (
                f"{name}, whose message is not shown, as it may have a part of the password in it: "
                "write each special character of the password in its percent-encoded form, such as "
                "%2F for / and %40 for @, and nothing after a password in the query"
            )
            return ConnectionError(msg)
        for each in _chain(exc, set()):
            if getattr(each, "_pgconn", None) is not None:
                each._pgconn = None  # type: ignore[attr-defined]  # noqa: SLF001  # psycopg's: it has all settings
        if all(self._hide(text) == text for text in _texts(exc)):
            return exc
        return ConnectionError(f"{name}: {self._hide(str(exc))}")

    def _hide(self, text: str) -> str:
        """Return *text* without the secrets, and without what may be a piece of one."""
        if self._secret is not None:
            text = self._secret.sub(_HIDDEN, text)
        kept: list[str] = []
        hidden_to = 0
        for index, char in enumerate(text):
            if text[index : index + _PIECE] in self._pieces:
                if index >= hidden_to:
                    kept.append(_HIDDEN)
                hidden_to = index + _PIECE
            elif index >= hidden_to:
                kept.append(char)
        return "".join(kept)


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as messages show it: as it is, escaped, and on one line."""
    yield secret
    yield repr(secret)[1:-1]
    yield re.sub(r"\s", " ", secret)  # so does Redis
    yield re.sub(r"[\t\r\n]", "", secret)  # so does urllib


def _pieces(text: str) -> Iterator[str]:
    for begin in range(len(text) - _PIECE + 1):
        yield text[begin : begin + _PIECE]


def is_secret(key: str) -> bool:
    """Whether that is the name of a setting whose value is a secret."""
    return any(word in key.lower() for word in ("password", "secret", "scram"))


def _chain(exc: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    """Yield an error, those in it, its causes, and what it was raised for."""
    if exc is None or id(exc) in seen:
        return
    seen.add(id(exc))
    yield exc
    for other in (exc.__cause__, exc.__context__, *getattr(exc, "exceptions", ())):
        yield from _chain(other, seen)


def _texts(exc: BaseException) -> Iterator[str]:
    """Yield all that an error says, with its notes."""
    for each in _chain(exc, set()):
        yield f"{each}\n{each!r}"
        yield from getattr(each, "__notes__", ())


class _HasAddress(Protocol):
    @property
    def address(self) -> Address: ...


Method = Callable[..., Coroutine[Any, Any, T]]


def cleaned(method: Method[T]) -> Method[T]:
    """Return a method that raises no error which may show the password of its object's address."""

    @wraps(method)
    async def call(self: _HasAddress, *arguments: Any) -> T:
        try:
            return await method(self, *arguments)
        except LockLostError:
            raise
        except Exception as exc:  # noqa: BLE001  # it is raised below
            failure = self.address.clean(exc)
        raise failure  # not in the block above, where it would refer to the other

    return call
