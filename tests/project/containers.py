"""What docs/docker.md says, tried with an image: its commands, as a user that owns nothing."""

import csv
import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

import httpx

from spade_faiss.datasets import make_demo

from .pages import ROOT, blocks

PAGE = ROOT / "docs" / "docker.md"
STRANGER = 12345
"""A user and group that no image knows."""
TOKEN = "of-the-tests-of-containers"
_ADDRESS = "127.0.0.1:8000"


def lines(*words):
    """Return the lines of the page's blocks that have all of these words."""
    code = "\n".join(block.code for block in blocks(PAGE.read_text())).splitlines()
    found = [line for line in code if all(word in line for word in words)]
    assert found, words
    return found


def make_parts(folder):
    """Make the folders that the page speaks of: good images, and new ones with a hole in one."""
    make_demo(folder / "demo", n_train=10, n_good=1, n_defects=1)
    gravel = folder / "demo" / "gravel"
    shutil.copytree(gravel / "train" / "good", folder / "parts" / "good")
    (folder / "new").mkdir()
    shutil.copy(gravel / "test" / "good" / "000.png", folder / "new" / "good.png")
    shutil.copy(gravel / "test" / "hole" / "000.png", folder / "new" / "hole.png")
    shutil.rmtree(folder / "demo")


class Caller:
    """Somebody who types the page's commands in a folder.

    Parameters
    ----------
    docker : Engine
    folder : Path
        Which the stranger may write to.
    options : sequence of str
        Further options of every `docker run`.
    """

    def __init__(self, docker, folder, options=()):
        self.docker, self.folder = docker, folder
        self._programs = folder.parent / f"{folder.name}-programs"
        self._programs.mkdir()
        real = shutil.which("docker")
        added = shlex.join([*docker.network, *options])
        for name, code in (
            ("id", f"echo {STRANGER}"),
            (
                "docker",
                f'if [ "$1" = run ]; then shift; set -- run {added} "$@"; fi\nexec {real} "$@"',
            ),
        ):
            path = self._programs / name
            path.write_text(f"#!/bin/sh\n{code}\n")
            path.chmod(0o755)

    def types(self, line):
        """Run a line of shell, and return what it prints."""
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=self.folder,
            env=self.docker.environment
            | {
                "PATH": f"{self._programs}{os.pathsep}{os.environ['PATH']}",
                "SPADE_FAISS_TOKEN": TOKEN,
            },
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, f"{line}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def inspects(self):
        """Build an index of the good parts and query the new ones; both files are the caller's."""
        for words in (("build parts/good", ":cpu"), ("query parts.index", ":cpu")):
            [line] = lines(*words)
            self.types(line)
        with (self.folder / "results" / "scores.csv").open() as file:
            verdicts = {row["path"]: row["verdict"] for row in csv.DictReader(file)}
        assert verdicts["new/hole.png"] == "NG", verdicts
        for made in (self.folder / "parts.index", self.folder / "results" / "report.html"):
            assert (made.stat().st_uid, made.stat().st_gid) == (STRANGER, STRANGER)

    @contextmanager
    def serves(self):
        """Start the service as the page does; give its address, and the container's name."""
        [line] = lines("serve parts.index", "docker run -d")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        if self.docker.bridged:
            line = line.replace(f"{_ADDRESS}:8000", f"127.0.0.1:{port}:8000")
        else:
            line = f"{line} --port {port}"
        assert str(port) in line
        container = self.types(line).strip()
        try:
            yield f"http://127.0.0.1:{port}", container
        finally:
            self.docker("rm", "--force", container)

    def uses_the_service(self):
        """Wait for its health, query it with and without the token, and stop it."""
        with self.serves() as (address, container):
            self.awaits_health(container)
            image = {"images": (self.folder / "new" / "hole.png").read_bytes()}
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            assert httpx.post(f"{address}/v1/query", files=image).status_code == 401
            answer = httpx.post(f"{address}/v1/query", files=image, headers=bearer, timeout=60)
            assert answer.json()["images"][0]["verdict"] == "NG", answer.text
            tried = subprocess.run(
                ["docker", "exec", container, "python", "-c", "open('/opt/spade/new', 'w')"],
                env=self.docker.environment,
                capture_output=True,
                text=True,
            )
            assert "Read-only file system" in tried.stderr
            self.docker("stop", container)
            state = json.loads(self.docker("inspect", "--format", "{{json .State}}", container))
            assert state["ExitCode"] == 0, self.docker("logs", container)

    def awaits_health(self, container, seconds=180):
        """Wait until the engine says that a container is healthy."""
        until = time.monotonic() + seconds
        while True:
            state = json.loads(self.docker("inspect", "--format", "{{json .State}}", container))
            if state["Health"]["Status"] == "healthy":
                return
            assert state["Running"] and time.monotonic() < until, (
                state,
                self.docker("logs", container),
            )
            time.sleep(0.2)
