"""Runs each part in a process of its own, within a time."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from threading import Timer
from typing import TYPE_CHECKING, Any

import torch

from .setting import Result, Setting

if TYPE_CHECKING:
    from .parts import Part

AROUND = 10.0
"""Seconds that imports before, and what is added up after, may take."""
LEAST = 15.0
"""Seconds that must be left for a part to be begun at all."""


def one_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def guarded(call: Callable[[], Any]) -> Any:
    """Return a call's result, or one line on why there is none."""
    try:
        return call()
    except Exception as error:
        traceback.print_exc()
        return {"error": one_line(error)}


def run_part(part: Part, name: str, args: argparse.Namespace) -> None:
    """Print the results of one part; of what fails, an error."""
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        for result in part.measure(Setting.of(args)):
            print(json.dumps(result), flush=True)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"part": part.title, "error": one_line(error)}), flush=True)
        sys.exit(1)


def results_of(
    names: Sequence[str],
    parts: dict[str, Part],
    args: argparse.Namespace,
    arguments: Sequence[str],
) -> Iterator[Result]:
    """Run parts one after another, and yield their results as they come.

    Parameters
    ----------
    names : sequence of str
        The parts to run.
    parts : dict of str to Part
    args : argparse.Namespace
        Says in how many minutes all ends.
    arguments : sequence of str
        The options as they were given, for the parts' processes.
    """
    end = time.monotonic() + 60 * args.minutes - AROUND
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            left = end - time.monotonic()
            if left < LEAST:
                yield {
                    "part": parts[name].title,
                    "way": name,
                    "not_reached": f"the {args.minutes:g} minutes were over",
                }
                continue
            limit = args.timeout or (left if args.rehearse else parts[name].seconds)
            command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
            command += ["--part", name, "--folder", folder]
            yield from _results(command, parts[name].title, name, min(limit, left))


def _results(command: list[str], title: str, name: str, limit: float) -> Iterator[Result]:
    """Yield the results of a part, which is ended after its time, with all that it began."""
    failed, begin, late = False, time.monotonic(), [False]

    def end() -> None:
        late[0] = True
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        ) as process,
    ):
        timer = Timer(limit, end)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if not line.startswith("{"):  # what a library printed
                    continue
                result = json.loads(line)
                failed |= "error" in result
                yield result
            process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                end()
        errors.seek(0)
        told = errors.read().strip()
        took = time.monotonic() - begin
        if late[0]:
            yield {"part": title, "way": name, "error": f"was ended after its {limit:.0f} s"}
        elif process.returncode and not failed:
            last = told.splitlines()[-1] if told else ""
            why = f"ended with status {process.returncode} after {took:.0f} s; {last}"
            yield {"part": title, "way": name, "error": why}
        if process.returncode:
            print(told, file=sys.stderr)
        yield {"part": title, "way": "time", "process": name, "process_s": round(took, 1)}
