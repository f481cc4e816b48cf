import base64
import io
import re
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import cv2
import httpx
import numpy as np
import pytest
import tifffile
import uvicorn
from PIL import Image

from spade_faiss import Spade, open_detector
from spade_faiss.service import History, Limits, LiveIndex, create_app
from spade_faiss.service.context import State
from spade_faiss.service.server import Server
from tests.conftest import texture, with_hole
from tests.waiting import wait_for

SMALL = {"resize": 96, "crop": 96}


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def form(*files):
    """Return httpx's description of a form with these bytes as images."""
    return [("images", (f"{i}.png", data)) for i, data in enumerate(files)]


def greeting(process):
    """Return the lines that a service which starts says before its address, and this."""
    said = []
    for line in iter(process.stderr.readline, ""):
        if found := re.search(r"served on (http://\S+?)/", line):
            return said, found[1]
        said.append(line)
    raise AssertionError("".join(said))


@contextmanager
def serving(folder, backbone, limits=None, every=1.0, detector=None, history=None, **options):
    """Serve an index in a thread of this process, opened with the options in `detector`."""
    limits = limits or Limits()

    def opener(at, networks):
        return open_detector(
            at, networks=networks or (backbone,), batch_size=limits.batch, **(detector or {})
        )

    with running(LiveIndex(folder, opener, every), limits, history, **options) as service:
        yield service


@contextmanager
def running(source, limits=None, history=None, **options):
    """Serve an index, or a folder of indices, in a thread of this process."""
    state = State()
    kept = history and History(history)
    app = create_app(source, limits or Limits(), state, kept=kept, **options)
    config = uvicorn.Config(
        app, port=0, http="h11", lifespan="on", log_level="warning", timeout_graceful_shutdown=10
    )
    server = Server(config, state)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            yield SimpleNamespace(
                client=client, port=port, live=source, state=state, server=server, kept=kept
            )
    finally:
        server.should_exit = True
        thread.join()
        if kept:
            kept.close()


def set_threshold(folder, value):
    """Write a manifest with a threshold that is set by hand, and nothing else."""
    spade = Spade.load(folder)
    spade.image_threshold = value
    spade.keep_threshold()


@pytest.fixture
def held(monkeypatch):
    """While this is cleared, no index can be opened."""
    go_on = threading.Event()
    go_on.set()
    opened = open_detector

    def slow(*arguments, **options):
        go_on.wait(60)
        return opened(*arguments, **options)

    monkeypatch.setitem(globals(), "open_detector", slow)
    yield go_on
    go_on.set()


@pytest.fixture(scope="session")
def index(tiny, gravel_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("service") / "index"
    Spade(tiny, quantile=0.8).fit(gravel_folder, folder)  # a rate that its images show
    return folder


@pytest.fixture(scope="session")
def service(index, tiny):
    with serving(index, tiny) as running:
        yield running


@pytest.fixture(scope="session")
def parts():
    """Eight new images of several sizes as RGB arrays, every other one with a hole."""
    images = texture("gravel", 8, seed=8)
    images = [with_hole(v, radius=20) if i % 2 else v for i, v in enumerate(images)]
    images[2] = cv2.resize(images[2], (400, 300))
    images[3] = np.ascontiguousarray(images[3][:, 10:])
    return images


def read_picture(picture):
    data = base64.b64decode(picture["data"])
    if picture["media_type"] == "image/tiff":
        return tifffile.imread(io.BytesIO(data))
    return np.asarray(Image.open(io.BytesIO(data)))
