"""How often each image of a line is judged, and each verdict told, when things are killed or away.

    python benchmarks/line.py watch --json   # files in bursts, `spade-faiss watch` killed twice
    python benchmarks/line.py down --json    # the receiver of its messages is away for a minute

`watch` writes images into a folder in bursts: some in two halves, some under another name that is
changed then, some into folders of their own. `spade-faiss watch` judges them, is killed twice
(SIGKILL) and started again. Then each image must have one row in `scores.csv`, and a map.

`down` writes images at a steady pace, and has each verdict posted. The receiver is shut for a time,
in which the watch is also killed once. Then each verdict must have come, known by its identity; how
often one came twice, known by the same identity, is told. The time from the writing of a file to
its row is compared while the receiver answers and while it does not.

Each prints one line and ends with 1 if something is missing or doubled.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage import data

from spade_faiss.notify import signature

SECRET = b"a key that only this benchmark has"


def views(count: int, seed: int, side: int) -> Iterator[np.ndarray]:
    """Yield views of gravel, uint8 [side, side, 3]; a tenth of them have a hole."""
    photo, rng = data.gravel(), np.random.default_rng(seed)
    for number in range(count):
        y, x = rng.integers(0, photo.shape[0] - side, 2)
        light = rng.uniform(0.9, 1)
        view = np.repeat((photo[y : y + side, x : x + side, None] * light).astype(np.uint8), 3, 2)
        if seed and number % 10 == 0:
            cv2.circle(view, (side // 2, side // 2), side // 8, (12, 10, 10), -1)
        yield view


class Folder:
    """Writes images as cameras do; `written` has when each was whole, by its relative path."""

    def __init__(self, path: Path) -> None:
        self.path, self.written = path, dict[str, float]()
        path.mkdir()

    def write(self, number: int, image: np.ndarray) -> None:
        """Write an image in one of several ways, by its number."""
        png = cv2.imencode(".png", image)[1].tobytes()
        name = f"part{number % 7}/{number:06}.png" if number % 5 == 0 else f"{number:06}.png"
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        if number % 11 == 0:  # in two halves
            with path.open("wb") as file:
                file.write(png[: len(png) // 2])
                file.flush()
                time.sleep(0.1)
                file.write(png[len(png) // 2 :])
        elif number % 3 == 0:  # under another name first
            beside = path.with_suffix(".png.part")
            beside.write_bytes(png)
            beside.rename(path)
        else:
            path.write_bytes(png)
        self.written[name] = time.time()


class Line:
    """Runs `spade-faiss watch`, again and again."""

    def __init__(self, program: list[str], index: Path, folder: Path, out: Path, *more: str):
        self._command = [*program, "watch", str(index), str(folder), "--out", str(out), "--json"]
        self._command += ["--overlay-size", "64", *more]
        self._out = out
        self._process: subprocess.Popen[str] | None = None
        self.events: list[dict[str, Any]] = []
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it."""
        process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)

        def read() -> None:
            assert process.stdout
            for line in process.stdout:
                if line.endswith("\n"):
                    self.events.append(json.loads(line))

        self._process = process
        self._reader = threading.Thread(target=read)
        self._reader.start()

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal, and return the exit status."""
        assert self._process and self._reader
        self._process.send_signal(number)
        status = self._process.wait()
        self._reader.join()
        return status

    def rows(self) -> list[list[str]]:
        """Return the rows that `scores.csv` has."""
        try:
            with (self._out / "scores.csv").open(newline="") as file:
                return list(csv.reader(file))[1:]
        except FileNotFoundError:
            return []

    def wait_for(self, rows: int) -> None:
        """Wait until `scores.csv` has so many rows."""
        while len(self.rows()) < rows:
            assert self._process
            if self._process.poll() is not None:
                sys.exit(f"the watch ended with {self._process.returncode}")
            time.sleep(0.05)


class Receiver:
    """Takes what is posted, and can be shut; `got` has the identities, `wrong` bad signatures."""

    def __init__(self) -> None:
        self.got: Counter[str] = Counter()
        self.wrong = 0
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    def open(self) -> None:
        """Listen, at the port of before."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver._server is None:  # it is shut: the connection is of before
                    self.close_connection = True
                    return
                identity = self.headers["webhook-id"]
                stamp = int(self.headers["webhook-timestamp"])
                right = signature(SECRET, identity, stamp, body)
                receiver.wrong += right != self.headers["webhook-signature"]
                receiver.wrong += json.loads(body)["id"] != identity
                receiver.got[identity] += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def shut(self) -> None:
        """Listen no more, and answer nothing on connections that are open."""
        server, self._server = self._server, None
        assert server
        server.shutdown()
        server.server_close()


@contextmanager
def a_line(args: argparse.Namespace, *more: str) -> Iterator[tuple[Folder, Line, Path]]:
    """Give a folder, a watch of it that is not started, and where its results go."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "good").mkdir()
        for number, image in enumerate(views(30, 0, args.side)):
            cv2.imwrite(str(root / "good" / f"{number}.png"), image)
        program = shlex.split(args.program)
        network = ["--backbone", args.backbone, "--resize", str(args.side)]
        build = [*program, "build", str(root / "good"), "--index", str(root / "index")]
        subprocess.run(
            [*build, *network, "--crop", str(args.side)], check=True, stdout=subprocess.DEVNULL
        )
        folder = Folder(root / "in")
        out = root / "out"
        yield folder, Line(program, root / "index", folder.path, out, *more), out


def delays(events: list[dict[str, Any]], folder: Folder) -> dict[str, float]:
    """Return the seconds from a file's writing to its row, by its relative path."""
    return {
        name: datetime.fromisoformat(one["time"]).timestamp() - folder.written[name]
        for one in events
        for name in [os.path.relpath(one["path"], folder.path)]
    }


def quantiles(values: list[float]) -> dict[str, float | None]:
    """Return the median and the 99th percentile, in seconds."""
    if not values:
        return {"p50_s": None, "p99_s": None}
    middle, high = np.quantile(values, [0.5, 0.99])
    return {"p50_s": round(float(middle), 2), "p99_s": round(float(high), 2)}


def counted(folder: Folder, line: Line, out: Path) -> dict[str, int]:
    """Return how many images there are, and how many have no row, several, or no map."""
    rows = Counter(os.path.relpath(row[0], folder.path) for row in line.rows())
    verdicts = Counter(row[3] for row in line.rows())
    return {
        "images": len(folder.written),
        "rows": sum(rows.values()),
        "missing": len(folder.written.keys() - rows.keys()),
        "doubled": sum(count > 1 for count in rows.values()),
        "unknown": len(rows.keys() - folder.written.keys()),
        "errors": verdicts["ERROR"],
        "without_map": sum(
            not (out / "maps" / name).with_suffix(".tiff").exists() for name in folder.written
        ),
    }


def watch(args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Write images in bursts, kill the watch twice, and count."""
    with a_line(args) as (folder, line, out):

        def write() -> None:
            for number, image in enumerate(views(args.images, 1, args.side)):
                folder.write(number, image)
                if (number + 1) % args.burst == 0:
                    time.sleep(args.pause)

        writer = threading.Thread(target=write)
        start = time.monotonic()
        line.start()
        writer.start()
        killed_at = []
        for kill in range(1, args.kills + 1):
            line.wait_for(args.images * kill // (args.kills + 1))
            line.end(signal.SIGKILL)
            killed_at.append(len(line.rows()))
            line.start()
        line.wait_for(args.images)
        took = time.monotonic() - start
        writer.join()
        time.sleep(3)  # in which what is doubled would come
        status = line.end()
        found = counted(folder, line, out)
        record = {
            **found,
            "burst": args.burst,
            "killed_at_rows": killed_at,
            "exit_status": status,
            "seconds": round(took, 1),
            "images_a_second": round(args.images / took, 1),
        }
    wrong = ("missing", "doubled", "unknown", "errors", "without_map", "exit_status")
    return record, not any(record[name] for name in wrong)


def down(args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Write images while the receiver is there, away, and there again, and count."""
    receiver = Receiver()
    receiver.open()
    with tempfile.NamedTemporaryFile() as secret:
        Path(secret.name).write_bytes(SECRET)
        url = f"http://127.0.0.1:{receiver.port}/verdicts"
        more = ("--notify", url, "--notify-secret-file", secret.name)
        with a_line(args, *more) as (folder, line, out):
            images = enumerate(views(10**6, 1, args.side))

            def write(seconds: float) -> list[str]:
                until, before = time.monotonic() + seconds, set(folder.written)
                while time.monotonic() < until:
                    folder.write(*next(images))
                    time.sleep(1 / args.rate)
                return [name for name in folder.written if name not in before]

            line.start()
            folder.write(*next(images))
            line.wait_for(1)
            first = write(args.seconds / 4)
            receiver.shut()
            shut_at, got_before = time.monotonic(), sum(receiver.got.values())
            away = write(args.seconds / 2)
            line.wait_for(len(folder.written) // 2)
            line.end(signal.SIGKILL)
            line.start()
            killed = write(args.seconds - (time.monotonic() - shut_at))
            line.wait_for(len(folder.written) - len(killed))
            came_meanwhile = sum(receiver.got.values()) - got_before
            receiver.open()
            opened = time.monotonic()
            last = write(args.seconds / 4)
            line.wait_for(len(folder.written))
            while len(receiver.got) < len(folder.written) and time.monotonic() < opened + 180:
                time.sleep(0.05)
            caught_up = time.monotonic() - opened
            time.sleep(3)  # in which what is doubled would come
            status = line.end()
            found = counted(folder, line, out)
            waited = delays(line.events, folder)
            record = {
                **found,
                "away_s": round(opened - shut_at, 1),
                "exit_status": status,
                "came_while_away": came_meanwhile,
                "identities": len(receiver.got),
                "posts": sum(receiver.got.values()),
                "lost": len(folder.written) - len(receiver.got),
                "identities_that_came_twice": sum(n > 1 for n in receiver.got.values()),
                "wrong_signatures": receiver.wrong,
                "caught_up_after_s": round(caught_up, 1),
                "to_row_while_there": quantiles([waited[one] for one in first if one in waited]),
                "to_row_while_away": quantiles([waited[one] for one in away if one in waited]),
                "to_row_at_last": quantiles([waited[one] for one in last if one in waited]),
            }
    receiver.shut()
    wrong = ("missing", "doubled", "unknown", "errors", "lost", "came_while_away")
    failed = [*wrong, "wrong_signatures", "exit_status"]
    return record, not any(record[name] for name in failed)


def main() -> None:
    """Run a demonstration."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["watch", "down"])
    parser.add_argument("--images", type=int, default=10_000, help="files, of watch")
    parser.add_argument("--burst", type=int, default=500, help="files at once, of watch")
    parser.add_argument("--pause", type=float, default=2, help="seconds between bursts")
    parser.add_argument("--kills", type=int, default=2, help="of watch")
    parser.add_argument("--seconds", type=float, default=60, help="that the receiver is away")
    parser.add_argument("--rate", type=float, default=5, help="files a second, of down")
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--program", default=shlex.join([sys.executable, "-m", "spade_faiss"]))
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    busy = os.getloadavg()[0]
    record, right = {"watch": watch, "down": down}[args.what](args)
    record = {
        "benchmark": f"line {args.what}",
        **record,
        "side": args.side,
        "backbone": args.backbone,
        "cores": os.cpu_count(),
        "load_before": round(busy, 1),
        "python": platform.python_version(),
    }
    if args.json:
        print(json.dumps(record), flush=True)
    else:
        print(*(f"{key:28} {value}" for key, value in record.items()), sep="\n", flush=True)
    sys.exit(not right)


if __name__ == "__main__":
    main()
