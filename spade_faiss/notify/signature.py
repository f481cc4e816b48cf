"""Signatures by which a receiver knows who sent a message, as Standard Webhooks has them.

The specification is at https://github.com/standard-webhooks/standard-webhooks.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from pathlib import Path

from ..errors import SpadeError

_PREFIX = "whsec_"
_LEAST = 16
"""Bytes of a secret: fewer can be guessed."""


def read_secret(path: Path) -> bytes:
    """Return the key that a file holds: base64 after `whsec_`, or else the text itself.

    Raises
    ------
    SpadeError
        If the file cannot be read, or holds fewer than 16 bytes of key.
    """
    try:
        text = path.read_text("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SpadeError(f"{path}: the secret cannot be read: {why}") from None
    key = text.encode()
    if text.startswith(_PREFIX):
        try:
            key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            raise SpadeError(f"{path}: what follows {_PREFIX} is not base64") from None
    if len(key) < _LEAST:
        raise SpadeError(
            f"{path} holds a secret of {len(key)} bytes, which can be guessed: write {_LEAST} or "
            "more at random"
        )
    return key


def signature(key: bytes, identity: str, seconds: int, body: bytes) -> str:
    """Return the signature of a message: `v1,` and the base64 of an HMAC-SHA256.

    Parameters
    ----------
    key : bytes
    identity : str
        The message's, the same each time it is sent.
    seconds : int
        When it is sent, since 1970 in UTC.
    body : bytes
    """
    signed = f"{identity}.{seconds}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
