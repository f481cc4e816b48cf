"""Train a network by steps that can be taken up again after the process was killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from spade_faiss._support.files import replace_file

from .method import Baseline, Image


@dataclass(frozen=True)
class Schedule:
    """How a network is trained.

    Attributes
    ----------
    steps, batch : int
    rate, decay : float
        Adam's learning rate and weight decay.
    keep_every : int
        Steps from one checkpoint to the next.
    """

    steps: int
    batch: int
    rate: float
    decay: float = 1e-5
    keep_every: int = 100


def train(
    network: nn.Module,
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    checkpoint: Path | None,
    key: str,
) -> int:
    """Train, from the checkpoint on if there is one with this key; return its step, else 0.

    A checkpoint holds the weights, Adam's moments and the number of steps. `loss(step)` draws
    whatever is random from the step's own number, so nothing else has to be kept: on the CPU with
    as many threads, an interrupted training ends with the very weights of one that was not.

    Parameters
    ----------
    network : nn.Module
        Trained in place, then set to evaluation.
    loss : callable
        Given a step's number from 0 on, returns what is to be made smaller.
    schedule : Schedule
    checkpoint : path, optional
        A safetensors file; it is replaced as a whole.
    key : str
        Says of what the training is; a checkpoint with another one is not used.
    """
    optimizer = torch.optim.Adam(
        network.parameters(),
        schedule.rate,
        weight_decay=schedule.decay,
        fused=next(network.parameters()).is_cuda,
    )
    network.train()
    begin = _load(checkpoint, key, network, optimizer) if checkpoint else 0
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):  # each step has the same shapes
        for step in tqdm(
            range(begin, schedule.steps),
            "training",
            disable=None,
            leave=False,
            initial=begin,
            total=schedule.steps,
        ):
            optimizer.zero_grad()
            loss(step).backward()
            optimizer.step()
            done = step + 1
            if checkpoint and (done % schedule.keep_every == 0 or done == schedule.steps):
                save_checkpoint(checkpoint, key, network, optimizer, done)
    network.eval().requires_grad_(False)
    return begin


def key_of(method: Baseline, images: Iterable[Image]) -> str:
    """Return what a training depends on: method, setting, seed, backbone and good images."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(np.ascontiguousarray(image).data)
    setting: Any = asdict(method.setting)
    setting["schedule"].pop("keep_every")
    return json.dumps(
        {
            "method": type(method).__name__,
            "setting": setting,
            "seed": method.seed,
            "backbone": method.network.weights_sha256,
            "images": digest.hexdigest(),
        },
        sort_keys=True,
    )


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return a new network whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def save_checkpoint(
    path: Path,
    key: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    """Write a network and its optimizer, of a training that is told by `key`, in one step."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": value for name, value in moments.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    replace_file(path, save(plain, {"key": key, "step": str(step)}), sync=True)


def _load(path: Path, key: str, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return 0
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return 0
    network.load_state_dict(
        {
            name.removeprefix("network."): value
            for name, value in tensors.items()
            if name.startswith("network.")
        }
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, number, moment = name.split(".")
            state.setdefault(int(number), {})[moment] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return int(metadata["step"])
