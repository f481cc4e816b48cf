"""Live sources: a real stream over HTTP, which stops and comes back."""

import csv
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from spade_faiss import SpadeError, open_detector
from spade_faiss.images import Frame
from spade_faiss.images.video.live import LiveSource, check_source, is_live, shown_source
from spade_faiss.line import CurrentIndex, Files, Ledger, Recorder, Span, judge_live
from tests.conftest import with_hole
from tests.http_server import HttpServer, Quiet
from tests.images.video.videos import write_video
from tests.line.conftest import views
from tests.notify.receivers import free_port
from tests.waiting import wait_for


class Camera(HttpServer):
    """Streams pictures as JPEG over HTTP, as network cameras do; each is a number, in grey.

    `sends` makes of a number and a file's bytes what is sent.
    """

    def __init__(self, fps=25, picture=None, sends=lambda number, data: data):
        super().__init__()
        self.fps, self.sent = fps, 0
        self.sends = sends
        self.picture = picture or (lambda number: np.full((64, 96, 3), number % 256, np.uint8))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/live.mjpg"

    def open(self):
        camera = self

        class Handler(Quiet, BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                server = camera.server
                try:
                    while camera.server is server:
                        image = camera.picture(camera.sent)
                        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
                        data = camera.sends(camera.sent, data.tobytes())
                        self.wfile.write(
                            b"--frame\r\nContent-Type: image/jpeg\r\n"
                            b"Content-Length: %d\r\n\r\n" % len(data)
                        )
                        self.wfile.write(data + b"\r\n")
                        camera.sent += 1
                        time.sleep(1 / camera.fps)
                except OSError:
                    pass

        return self.serve(Handler)


@contextmanager
def streaming(**options):
    camera = Camera(**options).open()
    try:
        yield camera
    finally:
        camera.shut()


def test_the_newest_frame_comes_and_those_between_are_left_out():
    with streaming(fps=50) as camera, LiveSource(camera.url) as source:
        numbers, late = [], []
        for _ in range(5):
            frame = source.take(30)
            numbers.append(round(frame.image.mean()))
            late.append(camera.sent - numbers[-1])
            time.sleep(0.3)  # as a network that is slower than the camera
        assert numbers == sorted(numbers)
        # Each is of when it is asked for, not of a queue that grows.
        steps = np.diff(numbers)
        assert (steps > 4).all() and max(late[1:]) < 15
        assert source.came > 5 * len(numbers) and source.damaged == 0


def test_frames_are_named_by_the_time_and_the_source_without_secrets():
    with streaming() as camera:
        url = camera.url.replace("//", "//name:word@") + "?token=t"
        before = time.time()
        with LiveSource(url) as source:
            frame = source.take(30)
    name, _, moment = frame.name.partition("#")
    assert name == camera.url and frame.image.shape == (64, 96, 3)
    assert before - 1 < datetime.fromisoformat(moment).timestamp() < time.time() + 1


def test_a_source_that_breaks_off_is_opened_again():
    said = []
    with streaming() as camera, LiveSource(camera.url, say=said.append) as source:
        assert source.take(30)
        camera.shut()
        wait_for(lambda: said)
        while source.take(0.1):
            pass
        assert source.take(0.3) is None
        camera.open()
        assert source.take(30)
    assert "gives no frames" in said[0] and "is back after" in said[1] and len(said) == 2


def test_a_source_that_is_not_there_yet_is_waited_for():
    said = []
    with streaming() as camera:
        camera.shut()
        with LiveSource(camera.url, say=said.append) as source:
            wait_for(lambda: said)
            camera.open()
            assert source.take(30)


def test_motion_is_seen_by_the_frame_a_tenth_of_a_second_before():
    with streaming(fps=40) as camera, LiveSource(camera.url, motion=True) as source:
        assert source.take(30)
        time.sleep(0.5)
        frame = source.take(30)
        assert 0.05 < frame.seconds - frame.before.seconds < 0.4
        assert frame.image.mean() > frame.before.image.mean()


SENDER = """
import sys, time
import av
import numpy as np

with av.open(sys.argv[1], "w", format="mpegts") as out:
    stream = out.add_stream("libx264", 25, options={"tune": "zerolatency", "g": "5"})
    stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
    for number in range(2000):
        image = np.full((64, 96, 3), 40 + number % 200, np.uint8)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        time.sleep(0.04)
"""


def test_a_stream_with_a_clock_of_its_own_is_read():
    """H.264 by TCP, its motion seen by the stream's time."""
    address = f"tcp://127.0.0.1:{free_port()}"
    command = [sys.executable, "-c", SENDER, f"{address}?listen=1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as sender:
        try:
            with LiveSource(address, motion=True) as source:
                assert source.take(60)
                time.sleep(1)
                frame = source.take(30)
        finally:
            sender.kill()
    between = frame.seconds - frame.before.seconds
    assert 0.1 <= between < 0.3
    steps = frame.image.mean() - frame.before.image.mean()
    assert steps == pytest.approx(25 * between, abs=1.5)


def test_what_cannot_be_decoded_is_left_out():
    def sends(number, data):
        return bytes(1000) if number % 5 == 4 else data[:300] if number % 5 == 3 else data

    said = []
    with (
        streaming(fps=100, sends=sends) as camera,
        LiveSource(camera.url, say=said.append) as source,
    ):
        while source.came < 20:
            source.take(30)
    assert source.damaged >= 3 and not said


def test_a_source_that_gave_frames_is_opened_again_whatever_it_gives(monkeypatch):
    """As a camera that starts anew, and answers before it has pictures."""
    monkeypatch.setattr("spade_faiss.images.video.live._UNDECODED", 0.1)
    broken, said = threading.Event(), []
    with (
        streaming(fps=50, sends=lambda _, data: bytes(1000) if broken.is_set() else data) as camera,
        LiveSource(camera.url, say=said.append) as source,
    ):
        assert source.take(30)
        broken.set()
        wait_for(lambda: said)
        broken.clear()
        wait_for(lambda: len(said) == 2)
        assert source.take(30)
    assert "Invalid data" in said[0] and "is back" in said[1]


@pytest.mark.parametrize("scheme", ["rtsp", "srt", "rtmps", "http", "tcp"])
def test_what_is_said_of_a_source_has_no_secret(scheme):
    said = []
    address = f"{scheme}://name:word@[::1]:{free_port()}/a?token=t"
    with LiveSource(address, say=said.append) as source:
        try:
            while not said:
                source.take(0.1)
        except SpadeError as error:  # of a protocol that this FFmpeg does not have
            said.append(str(error))
    assert said[0].startswith(f"{scheme}://[::1]:") and "/a" in said[0]
    assert not any(secret in said[0] for secret in ("name", "word", "token"))


@pytest.mark.parametrize("word", ["sec#ret", "sec/ret", "sec?ret", "sec[ret"])
def test_an_address_that_cannot_be_taken_apart_is_refused_without_showing_it(word):
    with pytest.raises(SpadeError, match="no host and port that can be read") as error:
        check_source(f"rtsp://name:{word}@host/stream")
    assert "sec" not in str(error.value)


def test_a_clock_of_the_stream_that_is_set_back_begins_motion_anew():
    source = LiveSource("tcp://host:1", motion=True)
    source._has_clock = True
    for seconds in (100.0, 100.04, 0.0, 0.04):
        source._put(SimpleNamespace(is_corrupt=False, time=seconds))
    assert [one.seconds for one in source._recent] == [0.0, 0.04]


def test_a_recording_is_no_live_source(tmp_path):
    path = write_video(tmp_path / "a.avi", [np.zeros((64, 64, 3), np.uint8)] * 24)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            self.wfile.write(path.read_bytes())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/a.avi"
        with (
            LiveSource(address) as source,
            pytest.raises(SpadeError, match="is a recording, not live"),
        ):
            source.take(30)
        server.shutdown()


@pytest.mark.parametrize("source", ["camera:front", "camera:", "ftp://host/a", "file:///a.mp4"])
def test_what_names_no_live_source_is_refused(source):
    assert is_live(source)
    with pytest.raises(SpadeError, match=r"name a camera by its number|no address of a stream"):
        check_source(source)


def test_files_are_not_taken_for_live_sources():
    assert not any(is_live(one) for one in ("a.png", "camera", "C:\\a.png", "/a/b", "in"))
    assert shown_source("camera:0") == "camera:0"


def test_frames_are_judged_and_those_that_are_wrong_have_files(tmp_path, line_index, tiny):
    good = views(1)[0]
    bad = with_hole(good, 32, 32, 12)
    events, said = [], []
    current = CurrentIndex(
        line_index, lambda networks: open_detector(line_index, networks=(tiny,)), said.append
    )
    frames = [good, bad]
    with (
        streaming(picture=lambda number: frames[number // 10 % 2]) as camera,
        Ledger(tmp_path / "out", camera.url) as ledger,
        LiveSource(camera.url) as source,
    ):
        recorder = Recorder(ledger, Files(), None, events.append, said.append)

        def judge(**span):
            return judge_live(source, current, recorder, Span(**span), threading.Event())

        assert judge(frames=30, worst=3) == 30
        start = time.monotonic()
        assert 0 < judge(seconds=1.5, fps=4) <= 7
        assert time.monotonic() - start < 20
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        rows = [*csv.reader(file)][1:]
    assert len(rows) == len(events) and {row[3] for row in rows} == {"OK", "NG"}
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})  # by the time
    first = [one for one in events[:30] if one["map"]]
    assert len(first) == 3 and all(one["verdict"] == "NG" for one in first)
    assert not any(one["map"] for one in events if one["verdict"] == "OK")
    assert len([*(tmp_path / "out" / "maps").rglob("*.tiff")]) == sum(
        one["map"] is not None for one in events
    )


def test_frames_of_the_same_moment_are_told_apart(tmp_path, line_index, tiny):
    """As where a clock was set back: a receiver that knows the first must count the second."""
    current = CurrentIndex(
        line_index, lambda networks: open_detector(line_index, networks=(tiny,)), print
    )
    events = []
    frames = SimpleNamespace(take=lambda timeout: Frame("camera:0#10:00:00Z", views(1)[0]))
    with Ledger(tmp_path / "out", "camera:0") as ledger:
        recorder = Recorder(ledger, Files(), None, events.append, print)
        assert judge_live(frames, current, recorder, Span(frames=2), threading.Event()) == 2
    assert events[0]["path"] == events[1]["path"] and events[0]["id"] != events[1]["id"]


@pytest.mark.parametrize("span", [{"frames": 0}, {"seconds": 0.0}, {"fps": -1.0}])
def test_a_span_that_is_none_is_refused(span):
    with pytest.raises(SpadeError, match="must be"):
        Span(**span)
