"""Checkpoints: fetched and verified, read as data, and loaded strictly."""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from ssl import SSLError
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ..errors import SpadeError

PUBLISHED = {
    "wide_resnet50_2": "https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth",
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "resnet101": "https://download.pytorch.org/models/resnet101-63fe2227.pth",
    "convnext_tiny": "https://download.pytorch.org/models/convnext_tiny-983f1562.pth",
    "convnext_small": "https://download.pytorch.org/models/convnext_small-0c510722.pth",
    "convnext_base": "https://download.pytorch.org/models/convnext_base-6075fbad.pth",
    "convnext_large": "https://download.pytorch.org/models/convnext_large-ea097f82.pth",
}
"""Checkpoints trained on ImageNet; a name ends in the first digits of the file's sha256."""


def sha256_of(path: Path) -> str:
    """Return a file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_state(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a state dict: of its names, types, shapes and values."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu()
        digest.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fetch(name: str) -> Path:
    """Return the published checkpoint of a network that `PUBLISHED` names; see `fetch_from`."""
    return fetch_from(PUBLISHED[name], name)


def fetch_from(url: str, name: str) -> Path:
    """Return the checkpoint of a network, downloaded once into torch's own cache.

    Parameters
    ----------
    url : str
        Its name ends in the first digits of the file's sha256, as torchvision's do.
    name : str
        The network's, for errors.

    Raises
    ------
    SpadeError
        If it is neither there nor to be had, cannot be kept, or its checksum is not the published
        one.
    """
    path = _in_cache(url)
    prefix = path.stem.rsplit("-", 1)[-1]
    if not re.fullmatch("[0-9a-f]{8,}", prefix):
        raise SpadeError(_unfetched(url, name, "has no checksum in its name"))
    if path.exists():
        if not sha256_of(path).startswith(prefix):
            raise SpadeError(
                f"{path} is damaged (its sha256 does not begin with {prefix}); "
                "delete it, and it is downloaded again"
            )
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), prefix, progress=sys.stderr.isatty())
    except (URLError, ConnectionError, TimeoutError, SSLError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise SpadeError(
            f"the weights of {name} are not in {path.parent} and {url} cannot be fetched "
            f"({reason}): name `backbone='efficientnet_lite0'`, which needs no download, go online "
            "once, or pass a copy of that file with `weights`"
        ) from None
    except OSError as error:
        raise SpadeError(
            f"the weights of {name} cannot be kept in {path.parent} ({error.strerror or error}): "
            f"let TORCH_HOME name a folder to write to, or pass a copy of {url} with `weights`"
        ) from None
    except RuntimeError:
        raise SpadeError(
            f"{url} gave a file whose sha256 does not begin with {prefix}; "
            "try again, or pass a good copy with `weights`"
        ) from None
    return path


def from_cache(url: str, name: str) -> Path:
    """Return the checkpoint of a network, if a user has put it into torch's own cache.

    It is not downloaded: no checksum of it is published.

    Raises
    ------
    SpadeError
        If it is not there.
    """
    path = _in_cache(url)
    if not path.exists():
        raise SpadeError(_unfetched(url, name, "has no published checksum"))
    return path


def _in_cache(url: str) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])


def _unfetched(url: str, name: str, why: str) -> str:
    return (
        f"the weights of {name} are not downloaded, since {url} {why}: download it yourself, and "
        f"pass the file with `weights` or put it into {_in_cache(url).parent}"
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint, .safetensors or torch's own format, without executing what it holds.

    A state dict wrapped as {"state_dict": …} or {"model": …}, or named by DataParallel
    ("module."), is unwrapped.

    Raises
    ------
    SpadeError
        If the file cannot be read as such.
    """
    if not path.is_file():
        raise SpadeError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: object = load_file(path)
        else:
            with warnings.catch_warnings(action="ignore"):
                state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise SpadeError(
            f"{path} holds more than tensors, or is damaged; "
            "save the model's state_dict() and pass that"
        ) from None
    except Exception as error:  # the parsers raise anything at all on damaged input
        raise SpadeError(f"{path} is not a readable checkpoint: {first_line(error)}") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise SpadeError(f"{path} does not hold a state dict of named tensors")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def load_into(
    network: nn.Module,
    state: Mapping[str, Tensor],
    source: Path,
    classifier: tuple[str, ...] = ("fc.", "_fc.", "head."),
) -> None:
    """Load a state dict whole: the first key that is missing, unknown or of another shape is named.

    The classifier, whose keys begin so, may be absent or of another size: features do not use it.

    Raises
    ------
    SpadeError
        On the first difference, or a value that is not finite.
    """
    own = network.state_dict()
    for key, value in own.items():
        if key.startswith(classifier):
            continue
        if key not in state:
            if key.endswith("num_batches_tracked"):  # absent from checkpoints of torch < 0.4.1
                continue
            raise SpadeError(f"{source} does not fit: {key} is missing")
        if state[key].shape != value.shape:
            raise SpadeError(
                f"{source} does not fit: {key} has shape {list(state[key].shape)} "
                f"where {list(value.shape)} is needed"
            )
        if not torch.isfinite(state[key]).all():
            raise SpadeError(f"{source} is damaged: {key} holds NaN or infinite values")
    for key in state:
        if key not in own and not key.startswith(classifier):
            raise SpadeError(f"{source} does not fit: {key} is unknown to this network")
    own.update({k: v for k, v in state.items() if k in own and v.shape == own[k].shape})
    network.load_state_dict(own)


def first_line(error: BaseException) -> str:
    """Return an error in one line."""
    return str(error).strip().split("\n")[0] or type(error).__name__
