"""What a request may consist of, beside its method and its path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

Params = Mapping[str, Any] | Sequence[tuple[str, Any]]


class RequestOptions(TypedDict, total=False):
    """The keyword arguments of `AppClient.get` and the others; each may be left out.

    A test's own helper takes and forwards them as ``**options: Unpack[RequestOptions]``.

    Attributes:
        params: What is added to the query string.
        headers: More headers.
        content: The body.
        json: The body, as a value that is sent as JSON, instead.
        data: The body, as the fields of a form, instead.

    .. versionadded:: 0.1
    """

    params: Params | None
    headers: Mapping[str, str] | None
    content: bytes | str
    json: Any
    data: Params | None
