"""ASGI apps of all habits, good and bad, for a comparison of servers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Habit = Callable[["Talk"], Awaitable[None]]


class Talk:
    """What an app and its server say to each other, with a log of it."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        self.log: list[Any] = []
        self._receive = receive
        self._send = send

    async def hear(self) -> None:
        message = dict(await self._receive())
        if not message.get("reason"):
            message.pop("reason", None)  # some servers say that there is none
        self.log.append(message)

    async def say(self, kind: str, **message: Any) -> None:
        try:
            await self._send({"type": kind, **message})
        except Exception as exc:
            # Which error it is, is up to the server; that of a lost connection is an OSError.
            self.log.append("lost" if isinstance(exc, OSError) else "refused")
            raise

    async def start(self, status: int = 200, **headers: str) -> None:
        fields = [
            (name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()
        ]
        await self.say("http.response.start", status=status, headers=fields)

    async def body(self, body: bytes = b"", *, more: bool = False) -> None:
        await self.say("http.response.body", body=body, more_body=more)


async def ordinary(talk: Talk) -> None:
    await talk.hear()
    await talk.start(X_Upper="Yes")
    await talk.body(b"hello")
    await talk.hear()


async def in_chunks(talk: Talk) -> None:
    await talk.start()
    await talk.body(b"one", more=True)
    await talk.body(more=True)
    await talk.body(b"two")


async def without_content(talk: Talk) -> None:
    await talk.start(204)
    await talk.body()


async def content_with_204(talk: Talk) -> None:
    await talk.start(204)
    await talk.body(b"hello")


async def exact(talk: Talk) -> None:
    await talk.start(Content_Length="5")
    await talk.body(b"hel", more=True)
    await talk.body(b"lo")


async def too_long(talk: Talk) -> None:
    await talk.start(content_length="3")
    await talk.body(b"hello")


async def too_short(talk: Talk) -> None:
    await talk.start(content_length="30")
    await talk.body(b"hello")


async def too_much(talk: Talk) -> None:
    await talk.start()
    await talk.body(b"hello")
    await talk.body(b"hello")


async def body_first(talk: Talk) -> None:
    await talk.body(b"hello")


async def start_alone(talk: Talk) -> None:
    await talk.start()


async def nothing(talk: Talk) -> None:
    """Return without a word."""


async def raises(talk: Talk) -> None:
    raise ZeroDivisionError


async def raises_in_the_middle(talk: Talk) -> None:
    await talk.start()
    await talk.body(b"hello", more=True)
    raise ZeroDivisionError


async def is_cancelled_by_nobody(talk: Talk) -> None:
    raise asyncio.CancelledError


HTTP: list[Habit] = [
    ordinary,
    in_chunks,
    without_content,
    content_with_204,
    exact,
    too_long,
    too_short,
    too_much,
    body_first,
    start_alone,
    nothing,
    raises,
    raises_in_the_middle,
    is_cancelled_by_nobody,
]


async def sends_and_closes(talk: Talk) -> None:
    await talk.hear()
    await talk.say("websocket.accept", headers=[(b"X-Upper", b"Yes")], subprotocol="chat")
    await talk.say("websocket.send", text="hello")
    await talk.say("websocket.send", bytes=b"hello")
    await talk.say("websocket.close", code=4002, reason="enough")
    await talk.hear()


async def sends_unaccepted(talk: Talk) -> None:
    await talk.say("websocket.send", text="hello")


async def accepts_twice(talk: Talk) -> None:
    await talk.say("websocket.accept")
    await talk.say("websocket.accept")


async def speaks_http(talk: Talk) -> None:
    await talk.say("websocket.accept")
    await talk.start()


async def sends_after_the_close(talk: Talk) -> None:
    await talk.say("websocket.accept")
    await talk.say("websocket.close")
    await talk.say("websocket.send", text="hello")


async def refuses(talk: Talk) -> None:
    await talk.say("websocket.close")


async def refuses_and_raises(talk: Talk) -> None:
    await talk.say("websocket.close")
    raise ZeroDivisionError


async def refuses_in_words(talk: Talk) -> None:
    headers = [(b"X-Upper", b"Yes")]
    await talk.say("websocket.http.response.start", status=401, headers=headers)
    await talk.say("websocket.http.response.body", body=b"no ", more_body=True)
    await talk.say("websocket.http.response.body", body=b"entry")


async def refuses_and_accepts(talk: Talk) -> None:
    await talk.say("websocket.http.response.start", status=401, headers=[])
    await talk.say("websocket.accept")


async def returns_open(talk: Talk) -> None:
    await talk.say("websocket.accept")


async def raises_open(talk: Talk) -> None:
    await talk.say("websocket.accept")
    raise ZeroDivisionError


async def sends_when_its_client_has_left(talk: Talk) -> None:
    await talk.hear()
    await talk.say("websocket.accept")
    await talk.hear()
    await talk.say("websocket.send", text="late")


WEBSOCKET: list[Habit] = [
    sends_and_closes,
    sends_unaccepted,
    accepts_twice,
    speaks_http,
    sends_after_the_close,
    refuses,
    refuses_and_raises,
    refuses_in_words,
    refuses_and_accepts,
    returns_open,
    raises_open,
    nothing,
    raises,
]
