"""The index on disk: FAISS files of descriptors and patches, and a manifest over them."""

from .manifest import Manifest, TrainingImage
from .store import Index, IndexWriter, damaged_files, discard_leftovers, index_lock

__all__ = [
    "Index", "IndexWriter", "Manifest", "TrainingImage", "damaged_files", "discard_leftovers",
    "index_lock",
]
