"""Signatures: processes that share a key accept messages only from each other."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence

from quattro_web._jobs.errors import BadSignatureError

CALL, OUTCOME, KEPT = "call", "outcome", "kept"

_LEAST_BYTES = 32
_PREFIX = b"signed "


class Signer:
    """Signs what this process sends, and opens what it gets.

    A signature is over everything that says what a message is for, so that it can't be taken for
    another one: its kind, the name of the jobs, the key of the call and the job.

    Args:
        keys: Any of them opens; the first one signs. Without any, nothing is signed.
        name: The name of the jobs.
    """

    def __init__(self, keys: Iterable[bytes] = (), name: str = "") -> None:
        self._keys = tuple(keys)
        self._name = name

    def signed(self, kind: str, key: str, job: str, data: bytes) -> bytes:
        """Return data with its signature in front."""
        if not self._keys:
            return data
        return self._signature(self._keys[0], kind, key, job, data) + b"\n" + data

    def opened(self, kind: str, key: str, job: str, message: bytes) -> bytes:
        """Return what was signed.

        Raises:
            BadSignatureError: If it was signed with another key, or not at all; or if it was
                signed, and there is no key here.
        """
        if not self._keys:
            if message.startswith(_PREFIX):
                msg = f"the {kind} of {job} is signed, but there is no signing_key here to check it"
                raise BadSignatureError(msg)
            return message
        signature, _, data = message.partition(b"\n")
        for own in self._keys:
            if hmac.compare_digest(self._signature(own, kind, key, job, data), signature):
                return data
        msg = f"the {kind} of {job} is not signed with the signing_key of this process"
        raise BadSignatureError(msg)

    def _signature(self, own: bytes, kind: str, key: str, job: str, data: bytes) -> bytes:
        digest = hmac.new(own, digestmod="sha256")
        for text in (kind, self._name, key, job):
            part = text.encode()
            digest.update(len(part).to_bytes(8))  # where it ends is signed as well
            digest.update(part)
        digest.update(data)
        return _PREFIX + digest.hexdigest().encode()


def checked_keys(signing_key: str | bytes | Sequence[str | bytes] | None) -> list[bytes]:
    """Return the keys that were given as argument *signing_key*, if they are some.

    Raises:
        TypeError: If one is neither a str nor bytes.
        ValueError: If one is too short, or if there are none.
    """
    if signing_key is None:
        return []
    given = [signing_key] if isinstance(signing_key, str | bytes) else [*signing_key]
    keys = []
    for each in given:
        if not isinstance(each, str | bytes):
            msg = f"signing_key must be bytes or a str, or several of them, got {type(each)!r}"
            raise TypeError(msg)
        key = each.encode() if isinstance(each, str) else each
        if len(key) < _LEAST_BYTES:  # it is not shown
            msg = (
                f"signing_key must have at least {_LEAST_BYTES} bytes, got {len(key)}: "
                "secrets.token_hex(32) makes one"
            )
            raise ValueError(msg)
        keys.append(key)
    if not keys:
        msg = "signing_key must be a key, or several, got none: None means that nothing is signed"
        raise ValueError(msg)
    return keys
