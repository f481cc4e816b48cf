import json
import sqlite3
import threading
import time

import pytest

from spade_faiss import SpadeError
from spade_faiss.notify import (
    QUEUE,
    Notifier,
    UnreachableError,
    check_address,
    open_sender,
    shown,
    signature,
    waiting_in,
)
from spade_faiss.notify import notifier as module
from spade_faiss.notify.queue import Queue
from tests.notify.receivers import broker, free_port, webhook
from tests.project.pages import ROOT, blocks
from tests.waiting import wait_for

__all__ = ["webhook"]  # a fixture
SECRET = b"sixteen bytes and more"


def event(number, verdict="OK"):
    return {"id": f"id{number}", "verdict": verdict, "path": f"{number}.png"}


@pytest.fixture
def notifier_to(tmp_path, monkeypatch):
    """Open notifiers one after another that send what waits in one folder, and retry soon."""
    monkeypatch.setattr(module, "_FIRST", 0.02)
    monkeypatch.setattr(module, "_LONGEST", 0.1)
    opened = []

    def open_one(url, timeout=10, **options):
        said = []
        sender = open_sender(url, SECRET, timeout)
        one = Notifier(tmp_path / "out", sender, say=said.append, name=shown(url), **options)
        setattr(one, "said", said)  # noqa: B010
        opened.append(one)
        return one

    yield open_one
    for one in opened:
        if one._thread.is_alive():
            one.close(0)


def test_events_are_posted_in_order_and_signed(webhook, notifier_to):
    notifier = notifier_to(webhook.url)
    notifier.put([event(0), event(1, "NG")])
    notifier.put([event(2)])
    assert notifier.close() == 0 and notifier.said == []
    assert webhook.ids == ["id0", "id1", "id2"]
    for headers, body in webhook.posts:
        stamp = int(headers["webhook-timestamp"])
        assert abs(stamp - time.time()) < 60
        expected = signature(SECRET, headers["webhook-id"], stamp, body)
        assert headers["webhook-signature"] == expected
        assert headers["Content-Type"] == "application/json"
        assert json.loads(body)["id"] == headers["webhook-id"]


def test_the_page_s_lines_tell_what_is_genuine(webhook, notifier_to):
    (block,) = [
        one for one in blocks((ROOT / "docs/line.md").read_text()) if one.language == "python"
    ]
    names = {}
    exec(block.code, names)
    is_genuine = names["is_genuine"]
    notifier = notifier_to(webhook.url)
    notifier.put([event(0)])
    notifier.close()
    ((headers, body),) = webhook.posts
    assert is_genuine(headers, body, SECRET)
    assert not is_genuine(headers, body + b" ", SECRET)
    assert not is_genuine(headers, body, b"another key of that length")
    late = {**headers, "webhook-timestamp": str(int(time.time()) - 600)}
    late["webhook-signature"] = signature(SECRET, "id0", int(late["webhook-timestamp"]), body)
    assert not is_genuine(late, body, SECRET) and is_genuine(late, body, SECRET, 700)


@pytest.mark.parametrize(
    "on, told",
    [
        ("all", ["OK", "NG", "REVIEW", "ERROR"]),
        ("ng", ["NG"]),
        ("not-ok", ["NG", "REVIEW", "ERROR"]),
    ],
)
def test_only_verdicts_that_are_asked_for_are_told(webhook, notifier_to, on, told):
    notifier = notifier_to(webhook.url, on=on)
    notifier.put(event(i, one) for i, one in enumerate(["OK", "NG", "REVIEW", "ERROR"]))
    notifier.close()
    assert [json.loads(body)["verdict"] for _, body in webhook.posts] == told


def test_nothing_is_lost_while_the_receiver_is_away_and_the_line_restarts(webhook, notifier_to):
    webhook.shut()
    first = notifier_to(webhook.url)
    first.put([event(0), event(1)])
    wait_for(lambda: first.said)
    assert "takes no messages now" in first.said[0] and "secret" not in first.said[0]
    assert first.close(5) == 2 and "2 messages are for" in first.said[-1]
    second = notifier_to(webhook.url)
    second.put([event(1), event(2)])  # one of them was put before
    wait_for(lambda: second.said)
    webhook.open()
    wait_for(lambda: len(webhook.posts) == 3)
    assert second.close() == 0
    assert webhook.ids == ["id0", "id1", "id2"]
    assert "takes messages again" in second.said[-1]
    third = notifier_to(webhook.url)
    third.put([event(2)])  # was sent, by another
    third.close()
    assert len(webhook.posts) == 3


def test_the_line_does_not_wait_for_a_receiver_that_hangs(webhook, notifier_to):
    webhook.go_on.clear()
    notifier = notifier_to(webhook.url)
    start = time.monotonic()
    for i in range(20):
        notifier.put([event(i)])
    assert time.monotonic() - start < 5 and not webhook.posts
    webhook.go_on.set()
    assert notifier.close(20) == 0
    assert webhook.ids == [f"id{i}" for i in range(20)]


def test_a_receiver_that_hangs_does_not_hold_up_the_end(webhook, notifier_to):
    webhook.go_on.clear()
    notifier = notifier_to(webhook.url)
    notifier.put([event(0)])
    start = time.monotonic()
    assert notifier.close(0.1) == 1
    assert time.monotonic() - start < 8
    webhook.go_on.set()
    assert notifier_to(webhook.url).close() == 0
    assert set(webhook.ids) == {"id0"}


def test_a_message_whose_answer_is_lost_comes_again_with_the_same_identity(webhook, notifier_to):
    broken = iter([None, None, None])
    webhook.answer = lambda headers, body: next(broken, 204)
    notifier = notifier_to(webhook.url)
    notifier.put([event(0), event(1)])
    wait_for(lambda: webhook.ids[-1:] == ["id1"])
    assert notifier.close() == 0
    assert set(webhook.ids[:-1]) == {"id0"} and len(webhook.ids) > 2


@pytest.mark.parametrize("status", [500, 503, 401, 404, 429, 301])
def test_a_receiver_that_answers_otherwise_is_asked_again(webhook, notifier_to, status):
    answers = iter([status, status])
    webhook.answer = lambda headers, body: next(answers, 200)
    notifier = notifier_to(webhook.url)
    notifier.put([event(0), event(1)])
    wait_for(lambda: len(webhook.posts) == 4)
    assert notifier.close() == 0 and webhook.ids == ["id0", "id0", "id0", "id1"]
    assert str(status) in notifier.said[0]


def test_a_message_that_is_refused_holds_up_no_other_and_is_kept(webhook, notifier_to):
    webhook.answer = lambda headers, body: 422 if headers["webhook-id"] == "id0" else 204
    notifier = notifier_to(webhook.url)
    notifier.put([event(0), event(1), event(2)])
    wait_for(lambda: len(webhook.posts) == 3)
    assert webhook.ids == ["id0", "id1", "id2"]
    start = time.monotonic()
    assert notifier.close(30) == 1 and "id0: it answers 422" in notifier.said[0]
    assert time.monotonic() - start < 15  # it is not due


def test_a_message_of_which_a_receiver_fails_holds_up_no_other_for_long(webhook, notifier_to):
    """Though it says that it fails itself."""
    webhook.answer = lambda headers, body: 500 if headers["webhook-id"] == "id0" else 204
    notifier = notifier_to(webhook.url)
    notifier.put([event(0), event(1), event(2)])
    wait_for(lambda: len(webhook.posts) == 7)
    assert notifier.close(30) == 1
    assert webhook.ids == ["id0"] * 5 + ["id1", "id2"]
    assert any("refused message id0: it answers 500" in one for one in notifier.said)


def test_the_order_is_kept_while_a_receiver_fails_of_all(webhook, notifier_to):
    answers = iter([503] * 12)
    webhook.answer = lambda headers, body: next(answers, 204)
    notifier = notifier_to(webhook.url)
    notifier.put([event(0), event(1), event(2)])
    wait_for(lambda: len(webhook.posts) >= 15)
    assert notifier.close() == 0
    assert webhook.ids[:5] == ["id0"] * 5 and webhook.ids[12:] == ["id0", "id1", "id2"]
    assert not any("refused" in one for one in notifier.said)


def test_a_message_is_sent_once_though_the_disk_is_full(webhook, notifier_to, monkeypatch):
    full, sent = threading.Event(), Queue.sent
    full.set()

    def refuse(queue, message):
        if full.is_set():
            raise SpadeError("the queue cannot be written: database or disk is full")
        sent(queue, message)

    monkeypatch.setattr(Queue, "sent", refuse)
    notifier = notifier_to(webhook.url)
    notifier.put([event(0), event(1)])
    wait_for(lambda: notifier.said)
    time.sleep(0.2)
    assert webhook.ids == ["id0"] and "no messages are sent now: the queue" in notifier.said[0]
    full.clear()
    wait_for(lambda: len(webhook.ids) == 2)
    assert notifier.close() == 0 and webhook.ids == ["id0", "id1"]


def test_what_was_sent_can_be_forgotten(webhook, notifier_to):
    for _ in range(2):
        notifier = notifier_to(webhook.url)
        notifier.put([event(0)])
        notifier.close(forget=True)
    assert webhook.ids == ["id0", "id0"]


def test_a_queue_belongs_to_one_process(tmp_path):
    queue = Queue(tmp_path / QUEUE)
    with pytest.raises(SpadeError, match="another process sends"):
        Queue(tmp_path / QUEUE)
    queue.put([("a", b"1")])
    queue.close()
    assert waiting_in(tmp_path) == 1 and waiting_in(tmp_path / "none") == 0


def test_a_queue_that_is_damaged_is_refused(tmp_path):
    (tmp_path / QUEUE).write_bytes(b"no database, but some text" * 100)
    with pytest.raises(SpadeError, match="is no queue of messages"):
        Queue(tmp_path / QUEUE)


def test_sent_messages_are_forgotten_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("spade_faiss.notify.queue._REMEMBERED", 3)
    queue = Queue(tmp_path / QUEUE)
    for i in range(10):
        queue.put([(f"{i}", b"")])
        queue.sent(queue.next())
    queue.close()
    with sqlite3.connect(tmp_path / QUEUE) as file:
        assert file.execute("SELECT COUNT(*) FROM messages").fetchone() == (3,)


@pytest.mark.parametrize(
    "url, why",
    [
        ("ftp://host/x", "takes http"),
        ("http:///x", "takes http"),
        ("host", "takes http"),
        ("http://host:x/", "no address"),
        ("mqtt://host", "no topic"),
        ("mqtt://host/a/#", "no topic"),
    ],
)
def test_an_address_that_nothing_can_be_sent_to_is_refused(url, why):
    with pytest.raises(SpadeError, match=why):
        check_address(url)


def test_an_address_is_shown_without_secrets():
    assert shown("https://name:word@host:8443/services/key?token=t") == "https://host:8443"
    assert shown("mqtt://name:word@[::1]:1884/hall/line") == "mqtt://[::1]:1884/hall/line"


@pytest.mark.parametrize("word", ["sec#ret", "sec/ret", "sec?ret", "sec[ret"])
def test_what_is_wrong_with_an_address_is_said_without_showing_it(word):
    with pytest.raises(SpadeError, match="no host and port that can be read") as error:
        check_address(f"https://name:{word}@host/path")
    assert "sec" not in str(error.value)


def test_an_address_may_have_any_letters(webhook, notifier_to):
    notifier = notifier_to(f"{webhook.url}%2Fé für Halle 1")
    notifier.put([event(0)])
    assert notifier.close() == 0 and not notifier.said
    assert webhook.targets == ["/told?token=secret%2F%C3%A9%20f%C3%BCr%20Halle%201"]


def test_a_slow_receiver_has_a_message_once_at_a_time(webhook, monkeypatch):
    sender = open_sender(webhook.url, SECRET)
    sender.send("id0", b"{}")
    posts = []

    def slow(body, headers):
        posts.append(body)
        raise TimeoutError

    monkeypatch.setattr(sender, "_post", slow)
    with pytest.raises(UnreachableError):
        sender.send("id1", b"{}")
    assert len(posts) == 1


def test_a_message_that_was_set_aside_by_a_clock_that_was_wrong_is_due(tmp_path):
    queue = Queue(tmp_path / QUEUE)
    queue.put([("a", b""), ("b", b"")])
    now = time.time()
    queue.set_aside(queue.next(), now + 60)
    assert queue.next(now).id == "b" and queue.next(now + 60).id == "a"
    assert queue.next(now - 1e6).id == "a"
    queue.close()


def test_a_name_and_a_password_are_sent(webhook, notifier_to):
    notifier = notifier_to(webhook.url.replace("//", "//na%40me:word@"))
    notifier.put([event(0)])
    notifier.close()
    assert webhook.posts[0][0]["Authorization"] == "Basic bmFAbWU6d29yZA=="


def test_messages_are_published_to_a_broker_that_may_be_away(tmp_path, notifier_to):
    """A real broker, ended and begun again; a subscriber that keeps its place meanwhile."""
    paho = pytest.importorskip("paho.mqtt.client", reason="needs the extra 'mqtt'")
    port = free_port()
    url = f"mqtt://line:a%20word@127.0.0.1:{port}/hall/line%201"
    notifier = notifier_to(url, timeout=2)
    notifier.put([event(0)])
    wait_for(lambda: notifier.said)
    assert "takes no messages now" in notifier.said[0] and "word" not in notifier.said[0]
    got = []

    def ids():
        return [json.loads(one.payload)["id"] for one in got]

    def subscribe():
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        client.username_pw_set("line", "a word")
        ready = threading.Event()
        client.on_message = lambda _, __, message: got.append(message)
        client.on_subscribe = lambda *_: ready.set()
        client.connect("127.0.0.1", port)
        client.subscribe("hall/line 1", qos=1)
        client.loop_start()
        assert ready.wait(20)
        return client

    for number in (1, 2):
        with broker(tmp_path, port):
            client = subscribe()
            notifier.put([event(number)])
            wait_for(lambda: notifier._queue.waiting() == 0)
            wait_for(lambda number=number: f"id{number}" in ids())
            client.disconnect()
            client.loop_stop()
    assert notifier.close() == 0
    assert ids()[-1] == "id2"
    for one in got:
        properties = dict(one.properties.UserProperty)
        stamp = int(properties["webhook-timestamp"])
        expected = signature(SECRET, properties["webhook-id"], stamp, one.payload)
        assert properties["webhook-signature"] == expected


def test_a_broker_that_refuses_is_told(tmp_path, notifier_to):
    pytest.importorskip("paho.mqtt.client", reason="needs the extra 'mqtt'")
    port = free_port()
    with broker(tmp_path, port):
        notifier = notifier_to(f"mqtt://line:wrong@127.0.0.1:{port}/topic", timeout=5)
        notifier.put([event(0)])
        wait_for(lambda: notifier.said)
        assert "Not authorized" in notifier.said[0]
        assert notifier.close(0) == 1


def test_a_broker_that_acknowledges_a_message_and_does_not_take_it_is_asked_again(
    tmp_path, notifier_to
):
    """As where the line may not publish to that topic."""
    pytest.importorskip("paho.mqtt.client", reason="needs the extra 'mqtt'")
    port = free_port()
    with broker(tmp_path, port, rights="user line\ntopic read #\n"):
        notifier = notifier_to(f"mqtt://line:a%20word@127.0.0.1:{port}/topic", timeout=5)
        notifier.put([event(0)])
        wait_for(lambda: notifier.said)
        assert "Not authorized" in notifier.said[0]
        assert notifier.close(0) == 1
