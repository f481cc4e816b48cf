"""Reach a Ray cluster, or start one that lasts as long as the work."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch

from .._support.limit import limit_memory
from ..detector.executor import ThisProcess
from ..detector.pipeline import Executor
from ..errors import SpadeError
from .executor import RayExecutor
from .worker import Setting
from .workers import Workers

_REACH = 10.0
"""Seconds that a cluster may take to accept a connection."""
_STORE = 1 << 30
"""Bytes of shared memory for what is on its way, with "local"; more of it goes to disk."""


@contextmanager
def ray_executor(
    address: str | None,
    workers: int | None = None,
    device: str = "auto",
    memory: int | None = None,
) -> Iterator[Executor]:
    """Give an executor on a cluster, for one detector: `detector.on(executor)`.

    Parameters
    ----------
    address, workers, device, memory
        As `start_workers` takes them. Without an address, the executor is this process.

    Raises
    ------
    SpadeError
        As `start_workers` does.
    """
    with start_workers(address, workers, device, memory) as actors:
        yield executor_of(actors)


def executor_of(workers: Workers | None, label: str = "") -> Executor:
    """Return an executor on workers, or without any this process.

    `label` names it in progress bars, where several are at work.
    """
    return ThisProcess() if workers is None else RayExecutor(workers, label)


@contextmanager
def start_workers(
    address: str | None,
    workers: int | None = None,
    device: str = "auto",
    memory: int | None = None,
) -> Iterator[Workers | None]:
    """Give actors on a cluster, which any number of executors may share: see `executor_of`.

    Parameters
    ----------
    address : str or None
        "host:port" of a cluster's head, "auto" for the one that runs here, "local" for one of
        this machine alone that ends with the work. None gives None.
    workers : int, optional
        Actors; by default one a GPU, or one a CPU core where there are no GPUs.
    device : str
        "auto", "cuda" or "cpu"; which GPU a worker has is for Ray to say.
    memory : int, optional
        Bytes that this process may take from when the cluster runs, and each actor; see
        `spade_faiss._support.limit`. Without an address nothing is limited.

    Raises
    ------
    SpadeError
        If Ray is not installed, no cluster answers, or a GPU is named.
    """
    if address is None:
        if workers is not None:
            raise SpadeError("`ray_workers` is for `ray`: add `ray='local'`, auto or an address")
        yield None
        return
    if "," in device or ":" in device:
        raise SpadeError(
            f"`device={device}`: with `ray` each worker is dealt a GPU; give auto, cuda or cpu"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise SpadeError(
            "`ray` needs Ray and what its Ray Data uses, not all of which is "
            "installed: pip install '.[ray]' in the project's folder"
        ) from None
    # It says what it was told to do, and what is raised here as well.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    _keep_stdout(ray._private.worker)
    mine = not ray.is_initialized()
    if mine:
        _connect(ray, address)
    try:
        if memory is not None:  # not before: a cluster that is started here would inherit it
            limit_memory(memory)
        setting = Setting(str(Path.cwd()), torch.get_num_threads(), memory)
        actors = Workers(setting, *_shares(ray, device, workers))
        try:
            yield actors
        finally:
            actors.dismiss()
    finally:
        if mine:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == "local":
            # Else Ray writes one into the home folder, where two that start at once may each
            # read the other's.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            ray.init("local", include_dashboard=False, object_store_memory=_STORE, **quiet)
            return
        if address != "auto":
            _knock(address)
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise SpadeError(
            f"`ray={address}`: no Ray cluster could be reached ({why[0]}); start one "
            "with 'ray start --head', or give `ray='local'`"
        ) from None


def _keep_stdout(internals: Any) -> None:
    """Have what Ray says of workers that ended go to stderr: stdout is for results.

    Ray has no setting for it; where its function is gone, its words stay where they are.
    """
    say = getattr(internals, "print_to_stdstream", None)
    if say and not hasattr(say, "func"):
        internals.print_to_stdstream = partial(_say_on_stderr, say)


def _say_on_stderr(say: Callable[..., None], data: dict[str, Any], **named: Any) -> None:
    say({**data, "is_err": True}, **named)


def _knock(address: str) -> None:
    """Connect once: Ray itself would try for minutes, and then end the process."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdigit():
        raise SpadeError(f"`ray={address}`: give HOST:PORT, auto or local")
    socket.create_connection((host, int(port)), timeout=_REACH).close()


def _shares(ray: Any, device: str, workers: int | None) -> tuple[int, dict[str, float], int]:
    """Return how many actors to start, what of its node each asks for, and the cores there are."""
    here = ray.cluster_resources()
    gpus, cpus = int(here.get("GPU", 0)), max(1, int(here.get("CPU", 0)))
    if gpus and device != "cpu":
        count = workers or gpus
        return count, {"num_cpus": 0, "num_gpus": 1 / ceil(count / gpus)}, cpus
    count = workers or cpus
    return count, {"num_cpus": min(1.0, cpus / count)}, cpus
