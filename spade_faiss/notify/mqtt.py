"""Publish messages to an MQTT broker; needs the extra `mqtt`."""

from __future__ import annotations

import time
from threading import Event
from typing import Any
from urllib.parse import SplitResult, unquote

from ..errors import SpadeError
from .sender import RefusedError, UnreachableError
from .signature import signature

try:
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
except ModuleNotFoundError:
    raise SpadeError(
        "mqtt:// needs the package paho-mqtt: pip install '.[mqtt]' in the project's folder"
    ) from None


class MqttSender:
    """Publishes messages to one topic of a broker by MQTT 5, with quality of service 1.

    The broker has a message once it has acknowledged it. What HTTP has in headers are user
    properties here.
    """

    def __init__(self, parts: SplitResult, secret: bytes | None, timeout: float) -> None:
        self._parts, self._secret, self._timeout = parts, secret, timeout
        self._topic = unquote(parts.path.strip("/"))
        self._client: paho.Client | None = None
        self._answers: dict[int, Any] = {}

    def send(self, identity: str, body: bytes) -> None:
        """Publish a message; return once the broker has acknowledged it."""
        client = self._client or self._connected()
        try:
            published = client.publish(
                self._topic, body, qos=1, properties=self._properties(identity, body)
            )
            published.wait_for_publish(self._timeout)
            done = published.is_published()
        except (OSError, ValueError, RuntimeError) as error:
            self.close()
            raise UnreachableError(str(error)) from None
        if not done:
            self.close()
            raise UnreachableError("it acknowledges nothing")
        answer = self._answers.pop(published.mid)
        if answer == "Payload format invalid":
            raise RefusedError(str(answer))
        if answer.is_failure:
            raise UnreachableError(str(answer))

    def _properties(self, identity: str, body: bytes) -> Properties:
        seconds = int(time.time())
        pairs = [("webhook-id", identity), ("webhook-timestamp", str(seconds))]
        if self._secret is not None:
            pairs.append(("webhook-signature", signature(self._secret, identity, seconds, body)))
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = "application/json"
        properties.UserProperty = pairs
        return properties

    def _connected(self) -> paho.Client:
        parts, answered, answers = self._parts, Event(), list[str]()
        # What waits, waits on disk: the client must not connect again and send by itself.
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        if parts.username is not None:
            client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if parts.scheme == "mqtts":
            client.tls_set()

        def connected(_: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
            if reason.is_failure:
                answers.append(str(reason))
            answered.set()

        def acknowledged(_: Any, __: Any, number: int, reason: Any, ___: Any) -> None:
            self._answers[number] = reason

        client.on_connect, client.on_publish = connected, acknowledged
        client.connect_timeout = self._timeout
        try:
            client.connect(parts.hostname or "", parts.port or _port(parts))
            client.loop_start()
        except OSError as error:
            raise UnreachableError(error.strerror or str(error)) from None
        self._client = client
        if not answered.wait(self._timeout) or answers:
            self.close()
            raise UnreachableError(answers[0] if answers else "it does not answer")
        return client

    def close(self) -> None:
        """Let go of the connection."""
        if self._client:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None
        self._answers.clear()


def _port(parts: SplitResult) -> int:
    return 8883 if parts.scheme == "mqtts" else 1883
