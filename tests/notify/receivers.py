"""Receivers of messages, which can be away, slow, or choosy."""

import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from tests.http_server import HttpServer, Quiet


class Webhook(HttpServer):
    """Takes what is posted at one port, whenever it is open.

    `posts` has the headers and the body of each post, `targets` the path and query; `answer` gives
    the status of one, or None to break the connection off once it was taken; `go_on` can be cleared
    to answer nothing.
    """

    def __init__(self):
        super().__init__()
        self.posts, self.targets, self.answer = [], [], lambda headers, body: 204
        self.go_on = threading.Event()
        self.go_on.set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/told?token=secret"

    @property
    def ids(self):
        return [headers["webhook-id"] for headers, _ in self.posts]

    def open(self):
        webhook = self

        class Handler(Quiet, BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.go_on.wait(20)
                if webhook.server is None:
                    self.close_connection = True
                    return
                webhook.posts.append((self.headers, body))
                webhook.targets.append(self.path)
                status = webhook.answer(self.headers, body)
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        return self.serve(Handler)


@pytest.fixture
def webhook():
    receiver = Webhook().open()
    yield receiver
    receiver.go_on.set()
    receiver.shut()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def broker(folder, port, rights=None):
    """Run mosquitto, which asks for a name and a password; `rights` say who may do what."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if not program:
        pytest.skip("there is no mosquitto")
    passwords, settings = folder / "passwords", folder / "mosquitto.conf"
    passwords.write_text("line:a word\n")
    subprocess.run([shutil.which("mosquitto_passwd"), "-U", passwords], check=True)
    settings.write_text(
        f"listener {port} 127.0.0.1\npassword_file {passwords}\nuser root\nallow_anonymous false\n"
    )
    if rights:
        (folder / "rights").write_text(rights)
        (folder / "rights").chmod(0o600)
        with settings.open("a") as file:
            file.write(f"acl_file {folder / 'rights'}\n")
    passwords.chmod(0o644)
    with subprocess.Popen([program, "-c", settings], stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    assert time.monotonic() < until and process.poll() is None
                    time.sleep(0.02)
            yield
        finally:
            process.terminate()
