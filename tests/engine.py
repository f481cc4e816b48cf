"""A Docker engine of the tests' own: what it builds and runs is gone when it ends.

`python -m tests.engine` says whether one can be started here.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

_WAYS = (
    ("--iptables=false", "--ip6tables=false"),
    ("--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"),
)
"""How it is started; the second way needs less of the machine."""
_PATIENCE = 60
"""Seconds until it must answer."""


class NoEngineError(Exception):
    """No engine can be started; the text says why."""


class Engine:
    """A running engine.

    Attributes
    ----------
    bridged : bool
        Whether containers have networks of their own; else they need the machine's.
    environment : dict
        With which `docker` speaks to it.
    """

    def __init__(self, folder, *, bridged):
        self.bridged = bridged
        self.environment = os.environ | {
            "DOCKER_HOST": f"unix://{folder}/socket",
            "DOCKER_CONFIG": str(folder / "config"),
            "DOCKER_BUILDKIT": "0",
        }

    @property
    def network(self):
        """Options of `docker run` where containers have no networks of their own."""
        return [] if self.bridged else ["--network", "host"]

    def __call__(self, *arguments, **options):
        """Run `docker`, and return what it prints."""
        ended = subprocess.run(
            ["docker", *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            **options,
        )
        assert ended.returncode == 0, f"docker {arguments}: {ended.stdout}{ended.stderr}"
        return ended.stdout.strip()

    def containers(self):
        """Return the names of all containers, those that have ended too."""
        return self("ps", "--all", "--quiet").split()


@contextmanager
def running(folder=None):
    """Give an engine that keeps what it makes in a folder, or nowhere when it has ended."""
    for program in ("docker", "dockerd"):
        if shutil.which(program) is None:
            raise NoEngineError(f"needs Docker's {program} on the path (Debian: docker.io)")
    if os.geteuid() != 0:
        raise NoEngineError("only root may start a Docker engine")
    # Sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="docker-") as own:
        place = Path(folder or own)
        had_bridge = Path("/sys/class/net/docker0").exists()
        process, way = _start(place)
        made = Engine(place, bridged="--bridge=none" not in way)
        try:
            yield made
        finally:
            if left := made.containers():
                made("rm", "--force", "--volumes", *left)
            process.terminate()
            process.wait()
            # What containers on the machine's own network leave.
            for left in (place / "run" / "netns").glob("*"):
                subprocess.run(["umount", left], capture_output=True)
            if made.bridged and not had_bridge:
                subprocess.run(["ip", "link", "del", "docker0"], capture_output=True)


def _start(place):
    """Start `dockerd` in one way or the other; return its process and the way."""
    place.mkdir(parents=True, exist_ok=True)
    log = place / "log"
    for way in _WAYS:
        command = ["dockerd", "--host", f"unix://{place}/socket", "--data-root", place / "data"]
        command += ["--exec-root", place / "run", "--pidfile", place / "pid", *way]
        with log.open("w") as said:
            process = subprocess.Popen(
                [*map(str, command)], stdout=said, stderr=said, start_new_session=True
            )
        asked = Engine(place, bridged=True)
        until = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < until:
            try:
                asked("info", timeout=10)
            except (AssertionError, subprocess.TimeoutExpired):
                time.sleep(0.2)
            else:
                return process, way
        process.kill()
        process.wait()
    raise NoEngineError(
        f"no Docker engine can be started: {log.read_text().strip().splitlines()[-1:]}"
    )


@pytest.fixture(scope="module")
def engine():
    """A Docker engine, or a skipped test that says why there is none."""
    try:
        with running() as made:
            yield made
    except NoEngineError as error:
        pytest.skip(str(error))


if __name__ == "__main__":
    try:
        with running():
            pass
    except NoEngineError as error:
        sys.exit(str(error))
