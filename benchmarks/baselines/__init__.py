"""Other methods of finding defects, behind one interface, to set beside SPADE.

On images, seven are those of SPADE's Table 3, which Bergmann et al. first compared on MVTec AD;
PaDiM and PatchCore came after. On video they are those of Table 4. Each module says which paper it
follows, and where and why it does not. `spade_faiss` imports none of it.
"""

from .ae2d import Ae2d
from .ae_conv3d import AeConv3d
from .cnn_dictionary import CnnDictionary
from .itae import Itae
from .l2_autoencoder import L2Autoencoder
from .memae import MemAe
from .method import Method
from .nearest_neighbour import NearestNeighbour
from .one_class_svm import OneClassSvm
from .padim import Padim
from .patchcore import PatchCore
from .spade import SpadeBest, SpadePaper
from .spade_video import SpadePaperVideo, SpadeVideo
from .ssim_autoencoder import SsimAutoencoder
from .stack_rnn import StackRnn
from .student import Student
from .tsc import Tsc
from .vae import Vae
from .video import VideoMethod

METHODS: dict[str, type[Method]] = {
    "Student": Student,
    "1-NN": NearestNeighbour,
    "OC-SVM": OneClassSvm,
    "l2-AE": L2Autoencoder,
    "VAE": Vae,
    "SSIM-AE": SsimAutoencoder,
    "CNN-Dict": CnnDictionary,
    "SPADE": SpadePaper,
    "SPADE-best": SpadeBest,
    "PaDiM": Padim,
    "PatchCore": PatchCore,
}
"""By the names that Table 3 has for them, in its order, then those that it has not."""

VIDEO_METHODS: dict[str, type[VideoMethod]] = {
    "TSC": Tsc,
    "StackRNN": StackRnn,
    "AE-Conv3D": AeConv3d,
    "MemAE": MemAe,
    "AE2D": Ae2d,
    "ITAE": Itae,
    "SPADE": SpadePaperVideo,
    "SPADE-video": SpadeVideo,
}
"""By the names that Table 4 has for them, brackets left out, in its order; then the others."""

__all__ = ["METHODS", "VIDEO_METHODS", "Method", "VideoMethod"]
