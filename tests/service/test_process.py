"""The command itself, in a process of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

from spade_faiss import SpadeError
from spade_faiss.service import serve
from tests.command import PROGRAM, one_line
from tests.service.serving import form, greeting, png, serving
from tests.waiting import wait_for

TOKEN = "a-token-of-some-length"


@contextmanager
def served(index, *options, **environment):
    """Start the command, and yield its process and address; it is killed if it still runs."""
    command = [*PROGRAM, "serve", str(index), "--port", "0", *options]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        try:
            yield process, greeting(process)[1]
        finally:
            process.kill()


@pytest.mark.slow
def test_a_killed_service_loses_no_accepted_request(index, parts):
    """Requests sent before the signal are answered, later ones are refused in words."""
    image = png(parts[1])
    with served(index) as (process, url):
        sent, answers = [], []
        stop = threading.Event()

        def ask():
            with httpx.Client(base_url=url, timeout=120) as client:
                while not stop.is_set():
                    sent.append(None)
                    at = time.monotonic()
                    try:
                        answer = client.post("/v1/query", files=form(image))
                        answers.append((at, answer.status_code, answer.json(), answer.headers))
                        if answer.status_code != 200:
                            return
                    except httpx.TransportError as error:
                        answers.append((at, error, None, None))
                        return

        clients = [threading.Thread(target=ask) for _ in range(8)]
        for client in clients:
            client.start()
        wait_for(lambda: len(answers) > 8)

        def in_work():
            metrics = httpx.get(f"{url}/metrics", timeout=120).text
            return float(re.search(r"^spade_faiss_images_in_work (\S+)", metrics, re.M)[1])

        wait_for(lambda: in_work() > 1)  # one is, but between an answer and the next request
        # A request is accepted once the service has read its head, for which half a second is
        # enough: its thread is not the one that computes.
        stop.wait(0.5)
        killed = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        left = process.stderr.read()
        stop.set()
        for client in clients:
            client.join()
    assert not left, left
    assert len(answers) == len(sent)
    accepted = [answer for answer in answers if answer[0] < killed - 0.4]
    assert len(accepted) > 8
    assert all(answer[1] == 200 for answer in accepted), [a[1] for a in accepted]
    for at, status, answer, headers in answers:
        if status == 503:
            assert "shutting down" in answer["detail"] and int(headers["retry-after"]) >= 1
        elif status != 200:  # no one listens any more
            assert isinstance(status, httpx.TransportError) and at > killed - 0.4
    assert [status for _, status, _, _ in answers].count(503) >= 1


def test_ctrl_c_ends_an_idle_service_and_the_token_may_come_from_the_environment(index):
    with served(index, "--host", "0.0.0.0", SPADE_FAISS_TOKEN=TOKEN) as (process, url):
        assert TOKEN not in " ".join(process.args)
        with httpx.Client(base_url=url.replace("0.0.0.0", "127.0.0.1"), timeout=60) as client:
            assert client.get("/v1/index").status_code == 401
            answer = client.get(
                "/v1/index", headers={"authorization": f"Bearer {TOKEN}", "host": "line-3.example"}
            )
            assert answer.status_code == 200 and TOKEN not in answer.text
            answer = client.post(
                "/v1/query",
                content=b"no form",
                headers={
                    "authorization": f"Bearer {TOKEN}",
                    "content-type": "multipart/form-data; boundary=b",
                },
            )
            assert answer.status_code == 422  # what is wrong with it is answered, and not logged
            process.send_signal(signal.SIGINT)  # while a connection is open
            assert process.wait(60) == 0
            assert process.stderr.read() == ""


def test_a_second_signal_ends_it_at_once(index, tiny):
    with (
        serving(index, tiny) as service,
        socket.create_connection(("127.0.0.1", service.port)) as connection,
    ):
        connection.sendall(
            b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        wait_for(lambda: "images_in_work 1.0" in service.client.get("/metrics").text)
        service.server.handle_exit(signal.SIGINT, None)
        wait_for(lambda: service.client.get("/readyz").status_code == 503)
        assert not service.server.should_exit
        service.server.handle_exit(signal.SIGINT, None)
        assert service.server.should_exit and service.server.force_exit


@pytest.mark.parametrize(
    "options, word",
    [
        ({"host": "0.0.0.0"}, "SPADE_FAISS_TOKEN"),
        ({"host": "0.0.0.0", "token": "short"}, "16"),
        ({"token": "a token with spaces in it"}, "spaces"),
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid"),
    ],
)
def test_what_is_refused(index, options, word):
    with pytest.raises(SpadeError, match=re.escape(word)):
        serve(index, **options)


def test_a_history_that_cannot_be_used_ends_it_at_once(index, tmp_path):
    (tmp_path / "history.sqlite").write_bytes(b"damaged" * 1000)
    with pytest.raises(SpadeError, match=r"history\.sqlite is damaged"):
        serve(index, port=0, history=tmp_path)


def test_a_port_that_is_taken_and_a_folder_without_an_index(index, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SpadeError, match="`port`"):
        serve(index, port=taken.getsockname()[1])
    with pytest.raises(SpadeError, match="holds no index"):
        serve(tmp_path, port=0)


def test_without_the_extra_one_line_names_it(index):
    hide = "import sys; sys.modules['uvicorn'] = None; from spade_faiss.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", hide, "serve", str(index)], capture_output=True, text=True
    )
    one_line(ended, "uvicorn", ".[serve]")
