"""How many queries a second the service answers, how soon, and what batching brings.

Starts `spade-faiss serve` on loopback with an index of one of the demo's textures, lets a number
of clients ask for a time, each sending its next image when the last was answered, and prints one
line for each size of batch: requests, errors, throughput, and quantiles of the latency. The
clients run on the same machine and take some of its time.

With `--indices N` it serves a folder of so many instead, of which the clients ask now one and now
another. After a third of the time one of them is replaced, and after half of it one is added, which
the clients ask from then on, too. What counts is that nothing fails, and how late the latest are.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
from skimage import data

from spade_faiss import Spade, SpadeError
from spade_faiss.client import Client
from spade_faiss.index import Manifest
from spade_faiss.index.manifest import MANIFEST

TEXTURES = ("gravel", "brick", "grass")


def views(count: int, seed: int, texture: str = "gravel") -> list[np.ndarray]:
    """Return views of a texture, uint8 [256, 256, 3]."""
    photo = getattr(data, texture)()
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, photo.shape[0] - 256, (count, 2))
    return [np.repeat(photo[y : y + 256, x : x + 256, None], 3, 2) for y, x in corners]


def body_of(image: np.ndarray) -> bytes:
    """Return a form with an image as PNG."""
    head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    return head + png_of(image) + b"\r\n--b--\r\n"


def png_of(image: np.ndarray) -> bytes:
    """Return an image as PNG."""
    return cv2.imencode(".png", image)[1].tobytes()


@contextmanager
def served(index: Path, batch: int) -> Iterator[tuple[int, int]]:
    """Serve an index in a process of its own, and yield the port and the process."""
    command = [
        sys.executable,
        "-m",
        "spade_faiss",
        "serve",
        str(index),
        "--port",
        "0",
        "--batch-size",
        str(batch),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        line = process.stderr.readline()
        found = re.search(r":(\d+)/", line)
        if not found:
            sys.exit(line + process.stderr.read())
        try:
            yield int(found[1]), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            if process.wait():
                sys.exit(f"the service ended with {process.returncode}")


def load(port: int, bodies: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """Ask for a time, and return what came back."""
    latencies: list[float] = []
    errors: list[str] = []
    until = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        while (start := time.perf_counter()) < until:
            try:
                connection.request("POST", "/v1/query", bodies[number % len(bodies)], headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200 or b'"verdict"' not in text:
                    errors.append(f"{answer.status}: {text[:200]!r}")
            except (OSError, http.client.HTTPException) as error:
                errors.append(repr(error))
                connection.close()
            latencies.append(time.perf_counter() - start)
            number += clients

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    quantiles = np.quantile(latencies, [0.5, 0.99])
    return {
        "requests": len(latencies),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        "seconds": round(took, 1),
        "requests_a_second": round(len(latencies) / took, 2),
        "p50_s": round(quantiles[0], 3),
        "p99_s": round(quantiles[1], 3),
    }


def memory_of(process: int) -> int:
    """Return MiB of memory of its own that a process holds."""
    found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) >> 10


class Several:
    """Clients that ask several indices, one of which is replaced and one added meanwhile.

    Parameters
    ----------
    folder : Path
        Of the indices, by the names of their textures.
    other, added : Path
        Indices that are to take the first one's place, and to be added.
    """

    def __init__(self, folder: Path, other: Path, added: Path) -> None:
        self._folder, self._other, self._added = folder, other, added
        self._names = sorted(one.name for one in folder.iterdir())
        self._first, self._old = self._names[0], ""
        self._answers: list[tuple[str, float, float, str]] = []
        self._errors: list[str] = []

    def load(self, url: str, process: int, clients: int, seconds: float) -> dict[str, Any]:
        """Ask for a time, and until both new indices have answered; return what came back."""
        images = {
            name: views(16, 1, name.partition(" ")[0]) for name in (*self._names, "brick new")
        }
        files = {name: [png_of(image) for image in some] for name, some in images.items()}
        with Client(url) as client:  # which opens them
            old = {
                name: client.for_index(name).query(files[name][0]).manifest_sha256
                for name in self._names
            }
        self._old = old[self._first]
        start = time.perf_counter()
        until = start + seconds

        def ask(number: int) -> None:
            with Client(url) as client:
                while (began := time.perf_counter()) < until or self._awaits(began - until):
                    names = self._names
                    name = names[number % len(names)]
                    try:
                        answer = client.for_index(name).query(files[name][number % 16])
                        assert answer.images[0].verdict
                        sha = answer.manifest_sha256
                        self._answers.append((name, began, time.perf_counter(), sha))
                    except (SpadeError, AssertionError) as error:
                        self._errors.append(str(error))
                    number += 1

        threads = [Thread(target=ask, args=(7 * number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 3)
        replaced = self._replace()
        time.sleep(seconds / 6)
        added = time.perf_counter()
        self._added.rename(self._folder / "brick new")
        self._names = [*self._names, "brick new"]
        for thread in threads:
            thread.join()
        took = time.perf_counter() - start
        latencies = [end - began for _, began, end, _ in self._answers]
        quantiles = np.quantile(latencies, [0.5, 0.99, 1])
        new, later = self._new(), self._later()
        return {
            "requests": len(latencies) + len(self._errors),
            "errors": len(self._errors),
            "first_error": self._errors[0] if self._errors else None,
            "seconds": round(took, 1),
            "requests_a_second": round(len(latencies) / took, 2),
            "p50_s": round(quantiles[0], 3),
            "p99_s": round(quantiles[1], 3),
            "longest_s": round(quantiles[2], 3),
            "replaced_answers_after_s": round(min(new) - replaced, 2) if new else None,
            "added_answers_after_s": round(min(later) - added, 2) if later else None,
            "by_index": {
                name: sum(one[0] == name for one in self._answers) for name in self._names
            },
            "memory_mib": memory_of(process),
        }

    def _new(self) -> list[float]:
        """Return when the index that was replaced gave other answers than at first."""
        first, old = self._first, self._old
        return [end for name, _, end, sha in self._answers if name == first and sha != old]

    def _later(self) -> list[float]:
        """Return when the index that was added answered."""
        return [end for name, _, end, _ in self._answers if name == "brick new"]

    def _awaits(self, late: float) -> bool:
        """Say whether one of them has not answered yet, though the time is over."""
        return late < 120 and not (self._new() and self._later())

    def _replace(self) -> float:
        """Put the other index in the first one's place, and return when that was."""
        there = self._folder / self._first
        generation = Manifest.read(self._other).generation
        (self._other / generation).rename(there / generation)
        (self._other / MANIFEST).replace(there / MANIFEST)
        return time.perf_counter()


def several(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make indices, serve them, and return what clients found."""
    made = folder / "indices"
    names = [f"{TEXTURES[i % 3]}{f' {i // 3}' if i >= 3 else ''}" for i in range(args.indices)]
    for number, name in enumerate(names):
        of = views(args.images, number, name.partition(" ")[0])
        Spade(args.backbone).fit(of, made / name)
    first = sorted(names)[0].partition(" ")[0]
    Spade(args.backbone).fit(views(args.images, 100, first), folder / "other")
    Spade(args.backbone).fit(views(args.images, 101, "brick"), folder / "new")
    (batch,), (clients,) = args.batch[-1:], args.clients[-1:]
    busy = os.getloadavg()[0]
    with served(made, batch) as (port, process):
        load = Several(made, folder / "other", folder / "new").load(
            f"http://127.0.0.1:{port}", process, clients, args.seconds
        )
    return {
        "benchmark": "serve_several",
        "indices": args.indices,
        "clients": clients,
        "batch_size": batch,
        **load,
        "load_before": round(busy, 1),
        "backbone": args.backbone,
        "good_images": args.images,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def batches(port: int) -> np.ndarray:
    """Return how many images were queried until now, and in how many batches."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()

    def told(name: str) -> float:
        found = re.search(rf"^spade_faiss_batch_images_{name} (\S+)", text, re.M)
        assert found
        return float(found[1])

    return np.array([told("sum"), told("count")])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--index", type=Path, help="an index that is there already")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--images", type=int, default=50, help="good images in the index")
    parser.add_argument("--indices", type=int, help="serve so many, and change them meanwhile")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.indices:
            show(several(args, Path(folder)), as_json=args.json)
            return
        index = args.index or Path(folder, "index")
        if not args.index:
            Spade(args.backbone).fit(views(args.images, 0), index)
        manifest = Manifest.read(index)
        bodies = [body_of(image) for image in views(64, 1)]
        for batch in args.batch:
            with served(index, batch) as (port, _):
                load(port, bodies, 8, 2)  # warms up
                for clients in args.clients:
                    busy, before = os.getloadavg()[0], batches(port)
                    result = {
                        "benchmark": "serve",
                        "clients": clients,
                        "batch_size": batch,
                        **load(port, bodies, clients, args.seconds),
                        "load_before": round(busy, 1),
                        "backbone": manifest.backbone.name,
                        "good_images": len(manifest.images),
                        "cores": os.cpu_count(),
                        "python": platform.python_version(),
                    }
                    images, made = batches(port) - before
                    result["mean_batch"] = round(images / made, 2)
                    show(result, as_json=args.json)


def show(result: dict[str, Any], *, as_json: bool) -> None:
    """Print a result."""
    if as_json:
        print(json.dumps(result), flush=True)
    else:
        print(*(f"{key:18} {value}" for key, value in result.items()), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
