"""From what the caller holds to NumPy arrays, without loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import Mask


def as_scores(scores: Any, name: str) -> npt.NDArray[Any]:
    """Return the scores as float32 where that holds them exactly, else as float64 or wider.

    Raises ValueError, naming `name`, for what is not real.
    """
    array = _as_array(scores)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: {array.dtype} is not a real number type")
    return array.astype(np.result_type(array.dtype, np.float32), copy=False)


def as_mask(mask: Any, name: str) -> Mask:
    """Return where the mask is not zero.

    Raises ValueError, naming `name`, for floating masks: a resized or scaled mask has values
    in between, whose meaning is the caller's to choose.
    """
    array = _as_array(mask)
    if array.dtype.kind not in "iub":
        raise ValueError(f"{name}: {array.dtype} is neither boolean nor an integer type")
    return array.astype(np.bool_, copy=False)


def _as_array(array: Any) -> npt.NDArray[Any]:
    if hasattr(array, "detach"):  # a tensor, on whichever device
        array = array.detach().cpu()
        if str(array.dtype) == "torch.bfloat16":  # unknown to NumPy
            array = array.float()
        array = array.numpy()
    return np.asarray(array)
