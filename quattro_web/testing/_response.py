"""What a client has got."""

from __future__ import annotations

import json
from email.message import Message as HeaderFields
from typing import Any

from starlette.datastructures import Headers


class Response:
    """A response that is complete.

    Attributes:
        status_code: Its status.
        headers: Its headers; upper and lower case are the same.
        content: Its body.

    .. versionadded:: 0.1
    """

    def __init__(self, status_code: int, headers: Headers, content: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self.content = content

    @property
    def text(self) -> str:
        """The body as text, in the charset that the headers name, or else in UTF-8.

        .. versionadded:: 0.1
        """
        fields = HeaderFields()
        fields["content-type"] = self.headers.get("content-type", "text/plain")
        return self.content.decode(fields.get_content_charset("utf-8"), "replace")

    def json(self) -> Any:
        """Return what the body says, as JSON.

        Raises:
            ValueError: If it is no JSON.

        .. versionadded:: 0.1
        """
        return json.loads(self.content)

    def __repr__(self) -> str:
        return f"<Response {self.status_code}, {len(self.content)} bytes>"


class ResponseCutError(ConnectionError):
    """The app has ended a response in the middle: a client can tell it from a complete one.

    .. versionadded:: 0.1
    """


class WebSocketRefusedError(ConnectionError):
    """The app has refused a WebSocket.

    Attributes:
        response: What it has answered. Servers answer 403 where it has closed the connection
            without a word.

    .. versionadded:: 0.1
    """

    def __init__(self, message: str, response: Response) -> None:
        super().__init__(message)
        self.response = response
