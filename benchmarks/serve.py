"""How many queries a second the service answers, how soon, and what batching brings.

Starts `spade-faiss serve` on loopback with an index of one of the demo's textures, lets a number
of clients ask for a time, each sending its next image when the last was answered, and prints one
line for each size of batch: requests, errors, throughput, and quantiles of the latency. The
clients run on the same machine and take some of its time.
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
from typing import Any

import cv2
import numpy as np
from skimage import data

from spade_faiss import Spade
from spade_faiss.index import Manifest


def views(count: int, seed: int) -> list[np.ndarray]:
    """Return views of gravel, uint8 [256, 256, 3]."""
    photo = data.gravel()
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, photo.shape[0] - 256, (count, 2))
    return [np.repeat(photo[y : y + 256, x : x + 256, None], 3, 2) for y, x in corners]


def body_of(image: np.ndarray) -> bytes:
    """Return a form with an image as PNG."""
    head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    return head + cv2.imencode(".png", image)[1].tobytes() + b"\r\n--b--\r\n"


@contextmanager
def served(index: Path, batch: int) -> Iterator[int]:
    """Serve an index in a process of its own, and yield the port."""
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
            yield int(found[1])
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
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index = args.index or Path(folder, "index")
        if not args.index:
            Spade(args.backbone).fit(views(args.images, 0), index)
        manifest = Manifest.read(index)
        bodies = [body_of(image) for image in views(64, 1)]
        for batch in args.batch:
            with served(index, batch) as port:
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
                    if args.json:
                        print(json.dumps(result), flush=True)
                    else:
                        print(
                            *(f"{key:18} {value}" for key, value in result.items()),
                            "",
                            sep="\n",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
