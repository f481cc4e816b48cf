"""Build an index again and again, each time killed a step later, and check what is left.

    python -m tests.index.killed INDEX IMAGES OLD STEP

A step is a change among INDEX's files, or a sync of one. OLD is the number of images that the
index has before, or 0 for none; the images there are 10. Prints how often it was killed.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import spade_faiss.detector  # noqa: F401 - once, and not in each child
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


def in_a_child(work: Callable[..., None], *arguments: object) -> int:
    """Do some work in a process of its own, and return how that ended.

    Nothing runs in this one: threads that a library keeps here would be missing in every child.
    """
    process = os.fork()
    if not process:
        try:
            work(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(folder: str, images: str, old: int, step: int) -> None:
    killed = 0
    while (ended := in_a_child(build_until, 1 + killed * step, folder, images)) == -signal.SIGKILL:
        assert in_a_child(check, folder, old) == 0
        killed += 1
    assert ended == 0 and in_a_child(check, folder, 10) == 0
    assert len([path for path in Path(folder).iterdir() if path.is_dir()]) == 1
    print(killed)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
