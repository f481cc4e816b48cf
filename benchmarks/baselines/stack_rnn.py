"""StackRNN: three steps of TSC as a recurrent network, whose constants are learnt.

Luo, Liu & Gao, *A revisit of sparse coding based anomaly detection in stacked RNN framework* (ICCV
2017). Sequential iterative soft-thresholding, by which `TSC` codes a patch, is a recurrent network
of as many layers as it takes steps, all with the same weights. The first layer starts from the code
of the frame before; each of three moves its code towards that of the patch, and back towards that
of the frame before by how similar the two frames are, and then soft-thresholds it. The dictionary,
the size of a step, the threshold and the pull towards the frame before are trained together, with a
second dictionary that gives patches back from the last layer's codes. Loss: half the squared error
over windows of ten frames. Score of a frame: the squared error of its worst patch, averaged over
the sizes of patches. Three sizes, layers, windows, both dictionaries, the loss and the score are
those of the authors' published code for Ped2.

Differences: the features, their scale, the sizes of patches, the similarity's constant and a clip's
first frame are as in `TSC`, for its reasons. Dictionaries start from patches of good frames, not
from noise, so that fewer steps suffice, and Adam takes them, not RMSProp. The first layer takes the
step that the others take, at which there is no pull yet; the authors' code has another term there.
That code does not train the pull. `small` has 256 atoms instead of 2048, learns from each fourth
frame, and takes 300 steps at a rate of 1e-3 where that code takes 40 000 at 1e-5; `paper` takes as
many at 1e-4.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .sparse_coding import Coder, CodingSetting, PatchCoder, soft_thresholded
from .training import Schedule


class StackedRnn(Coder):
    """A few steps of soft-thresholding with trained constants, and a dictionary of its own back.

    Parameters
    ----------
    rows : [atoms, C]
        What both dictionaries are at first.
    setting : CodingSetting
    """

    def __init__(self, rows: Tensor, setting: CodingSetting) -> None:
        super().__init__()
        atoms = nn.functional.normalize(rows, dim=1)
        self.dictionary = nn.Parameter(atoms.clone())
        self.back = nn.Parameter(atoms.clone())
        first = 1 / torch.linalg.matrix_norm(atoms, 2) ** 2
        constants = torch.stack(
            [first, torch.tensor(setting.sparsity), torch.tensor(setting.coherence)]
        )
        self.logarithms = nn.Parameter(constants.log())
        self.atoms = len(rows)
        self._layers = setting.layers

    def encode(self, inputs: Tensor, before: Tensor, similarity: Tensor) -> Tensor:
        """Return the codes of the last layer."""
        step, sparsity, coherence = self.logarithms.exp()
        pull = coherence * similarity
        return soft_thresholded(inputs, before, pull, self.dictionary, step, sparsity, self._layers)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the mixtures of the second dictionary's atoms."""
        return codes @ self.back


class StackRnn(PatchCoder):
    """See the module."""

    budgets: ClassVar = {
        "small": CodingSetting(
            Schedule(steps=300, batch=4, rate=1e-3, decay=0),
            atoms=256,
            every=4,
            layers=3,
            grids=(1, 2, 4, 8),
        ),
        "paper": CodingSetting(
            Schedule(steps=40_000, batch=4, rate=1e-4, decay=0, keep_every=1000),
            atoms=2048,
            every=1,
            layers=3,
        ),
    }

    def make(self, rows: Tensor) -> Coder:
        """Return the network."""
        return StackedRnn(rows, self.setting)

    def loss(self, windows: Tensor, similarity: Tensor) -> Tensor:
        """Return half the squared error."""
        back = self.trained.decode(self.trained(windows, similarity))
        loss: Tensor = (windows - back).square().sum(-1).mean() / 2
        return loss
