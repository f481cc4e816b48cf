"""From an address to what sends there."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from .._support.text import host_of
from ..errors import SpadeError
from .sender import Sender

_HTTP, _MQTT = ("http", "https"), ("mqtt", "mqtts")


def check_address(url: str) -> SplitResult:
    """Return the parts of an address.

    Raises
    ------
    SpadeError
        If it is none that messages can be sent to.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # whose text may have a part of a password
        raise SpadeError(
            "`notify` is no address: it has no host and port that can be read; in a name or a "
            "password, write / as %2F, # as %23, ? as %3F, [ as %5B"
        ) from None
    if parts.scheme not in (*_HTTP, *_MQTT) or not parts.hostname:
        raise SpadeError(
            "`notify` takes http://HOST/PATH, https://HOST/PATH, mqtt://HOST/TOPIC or "
            "mqtts://HOST/TOPIC"
        )
    topic = parts.path.strip("/")
    if parts.scheme in _MQTT and (not topic or "#" in url or "+" in topic):
        raise SpadeError(
            f"`notify` names no topic to publish to: {parts.scheme}://{parts.hostname}/TOPIC, "
            "without + and #"
        )
    return parts


def shown(url: str) -> str:
    """Return an address without what may be secret: a name, a password, a token.

    Of a webhook the path is left out, too: with many receivers it is the secret.
    """
    parts = urlsplit(url)
    topic = parts.path if parts.scheme in _MQTT else ""
    return f"{parts.scheme}://{host_of(parts)}{topic}"


def open_sender(url: str, secret: bytes | None = None, timeout: float = 10) -> Sender:
    """Return what sends to an address; nothing is connected yet.

    Parameters
    ----------
    url : str
        `http://`, `https://`, `mqtt://` or `mqtts://`; a name and a password may stand before the
        host.
    secret : bytes, optional
        Signs each message.
    timeout : float
        Seconds to wait for an answer.

    Raises
    ------
    SpadeError
        If the address is none of these, or the extra `mqtt` is not installed.
    """
    parts = check_address(url)
    if parts.scheme in _MQTT:
        from .mqtt import MqttSender

        return MqttSender(parts, secret, timeout)
    from .http import HttpSender

    return HttpSender(parts, secret, timeout)
