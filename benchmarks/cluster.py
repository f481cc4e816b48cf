"""What Ray costs, and whether its results are those of one machine: one JSON object a line.

Builds an index for each of three demo categories in one job, and queries one of them, with
EfficientNet-Lite0: without Ray, with `--ray local` and 1, 2 and 4 workers, and (queries) with two
Ray nodes in network namespaces of their own, once as they are and once with one node killed
(SIGKILL to all its processes) in the middle. The latter need root and `ip`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_PORT = 6391
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


def spade(*arguments: object, inside: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a command, in a network namespace if one is named."""
    command = [*inside, sys.executable, "-m", "spade_faiss", *map(str, arguments)]
    return subprocess.Popen(
        [*command, "--engine", "faiss"], stdout=subprocess.DEVNULL, env={**os.environ, **_QUIET}
    )


def files_in(folder: Path) -> int:
    """Return how many files a folder holds, at any depth."""
    return sum(path.is_file() for path in folder.rglob("*"))


def digest(out: Path) -> str:
    """Return a digest of all files and their names, but for what tells an index's generation."""
    found = hashlib.sha256()
    names = {
        re.sub("/[0-9a-f]{8}/", "/", str(path.relative_to(out))): path
        for path in out.rglob("*")
        if path.is_file()
    }
    for name, path in sorted(names.items()):
        if path.name not in ("manifest.json", "verified.json"):
            found.update(name.encode() + path.read_bytes())
    return found.hexdigest()


@contextmanager
def two_nodes() -> Iterator[tuple[tuple[str, ...], str]]:
    """Run two Ray nodes, each in its namespace; give a way into the head's, and its address."""
    names = ("spadehead", "spadenode")
    nodes: list[subprocess.Popen[bytes]] = []
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(
            [
                "ip",
                "link",
                "add",
                "spade0",
                "netns",
                names[0],
                "type",
                "veth",
                "peer",
                "name",
                "spade1",
                "netns",
                names[1],
            ],
            check=True,
        )
        for i, name in enumerate(names):
            for rest in (
                ["addr", "add", f"10.77.0.{i + 1}/24", "dev", f"spade{i}"],
                ["link", "set", f"spade{i}", "up"],
                ["link", "set", "lo", "up"],
            ):
                subprocess.run(["ip", "-n", name, *rest], check=True)
        address = f"10.77.0.1:{_PORT}"
        ray = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            "--num-cpus=1",
            "--object-store-memory=209715200",
        ]
        for i, rest in enumerate(
            (
                [
                    "--head",
                    f"--port={_PORT}",
                    "--include-dashboard=false",
                    "--node-ip-address=10.77.0.1",
                ],
                [f"--address={address}", "--node-ip-address=10.77.0.2"],
            )
        ):
            nodes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", names[i], *ray, *rest],
                    env={**os.environ, **_QUIET},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            time.sleep(1)
        yield ("ip", "netns", "exec", names[0]), address
    finally:
        for name in names:
            end_all(name)
        for node in nodes:
            node.wait()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def end_all(namespace: str) -> None:
    """Kill every process of a network namespace that this script made."""
    found = subprocess.run(["ip", "netns", "pids", namespace], check=False, capture_output=True)
    for pid in found.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def wait_for_nodes(inside: tuple[str, ...], address: str, count: int) -> None:
    """Wait until a cluster has so many nodes."""
    code = (
        f"import ray,time; ray.init({address!r}, logging_level='ERROR', log_to_driver=False)\n"
        f"while sum(n['Alive'] for n in ray.nodes()) < {count}: time.sleep(0.5)"
    )
    for _ in range(20):
        if (
            subprocess.run(
                [*inside, sys.executable, "-c", code],
                check=False,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_QUIET},
            ).returncode
            == 0
        ):
            return
        time.sleep(3)
    raise SystemExit("the two nodes did not find each other")


def run(work: Path, repeat: int, nodes: bool) -> Iterator[dict[str, Any]]:
    """Yield one record a setting."""
    from spade_faiss import Spade
    from spade_faiss.datasets import make_demo

    make_demo(work / "data")
    for category in (path for path in (work / "data").iterdir() if path.is_dir()):
        shutil.copytree(category / "train" / "good", work / "lines" / category.name)
    index, images = work / "brick", work / "data" / "brick" / "test"
    Spade("efficientnet_lite0", engine="faiss").fit(work / "lines" / "brick", index)
    build = (
        "build",
        work / "lines",
        "--each",
        "--index",
        work / "out",
        "--backbone",
        "efficientnet_lite0",
    )
    query = ("query", index, images, "--out", work / "out", "--no-overlays")
    expected = ""
    for task, folder, arguments in (
        ("build of three lines", work / "lines", build),
        ("query", images, query),
    ):
        n, expected = files_in(folder), ""
        for workers in (0, 1, 2, 4):
            seconds = []
            more = ("--ray", "local", "--ray-workers", workers) if workers else ()
            for _ in range(repeat):
                shutil.rmtree(work / "out", ignore_errors=True)
                start = time.perf_counter()
                if spade(*arguments, *more).wait():
                    raise SystemExit(f"{task}: failed")
                seconds.append(time.perf_counter() - start)
                expected = expected or digest(work / "out")
            yield {
                "task": task,
                "setting": f"local, {workers} workers" if workers else "no Ray",
                "images": n,
                "seconds": round(statistics.median(seconds), 1),
                "repeats": repeat,
                "equal": digest(work / "out") == expected,
            }
    for killed in (False, True) if nodes else ():
        shutil.rmtree(work / "out", ignore_errors=True)
        with two_nodes() as (inside, address):
            wait_for_nodes(inside, address, 2)
            start = time.perf_counter()
            one = spade(*query, "--ray", address, "--ray-workers", 2, inside=inside)
            if killed:
                while one.poll() is None and not list(work.glob("out/maps/**/*.tiff")):
                    time.sleep(0.05)
                end_all("spadenode")
            status = one.wait()
            setting = "two namespaces" + (", one node killed" if killed else "")
            yield {
                "task": "query",
                "setting": setting,
                "images": files_in(images),
                "seconds": round(time.perf_counter() - start, 1),
                "repeats": 1,
                "equal": status == 0 and digest(work / "out") == expected,
            }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--nodes", action="store_true", help="two nodes, too (root)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spade-ray-") as folder:
        for record in run(Path(folder), options.repeat, options.nodes):
            print(json.dumps(record) if options.json else record, flush=True)


if __name__ == "__main__":
    main()
