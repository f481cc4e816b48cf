"""Build an index again and again, each time killed a step later, and check what is left.

    python -m tests.index.killed INDEX IMAGES OLD STEP

A step is a change among INDEX's files, or a sync of one. OLD is the number of images that the
index has before, or 0 for none; the images there are 10. Prints how often it was killed.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from spade_faiss import SpadeError
from spade_faiss.cli.app import run
from spade_faiss.index import Index
from tests.tiny import register

CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}


def build_until(step: int, folder: str, images: str) -> None:
    """Build in this process, which SIGKILL ends at a step."""
    register()
    sync, steps = os.fsync, iter(range(1, step))

    def taken(event: str, arguments: tuple[object, ...]) -> None:
        names = [os.fsdecode(one) for one in arguments if isinstance(one, (str, bytes, Path))]
        if event in CHANGES and any(name.startswith(folder) for name in names):
            end_after(steps)

    def synced(file: int) -> None:
        sync(file)
        end_after(steps)

    os.fsync = synced
    sys.addaudithook(taken)
    options = ["--backbone", "tiny", "--resize", "64", "--crop", "64", "--batch-size", "1"]
    os._exit(run(["build", images, "--index", folder, *options]))


def end_after(steps: Iterator[int]) -> None:
    if next(steps, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)


def check(folder: str, old: int) -> None:
    if old or Path(folder, "manifest.json").exists():
        assert len(Index.open(folder)) in {old or 10, 10}
        return
    try:
        Index.open(folder)
    except SpadeError as error:
        assert "holds no index" in str(error)


def main(folder: str, images: str, old: int, step: int) -> None:
    killed = 0
    while True:
        process = os.fork()  # nothing has run here yet that a child could not take over
        if not process:
            build_until(1 + killed * step, folder, images)
        ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        check(folder, old)
        if ended != -signal.SIGKILL:
            break
        killed += 1
    assert ended == 0 and len(Index.open(folder)) == 10
    assert len([path for path in Path(folder).iterdir() if path.is_dir()]) == 1
    print(killed)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
