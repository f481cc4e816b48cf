"""The index on disk: FAISS files of descriptors and patches, and a manifest over them."""

from .ensemble import EnsembleManifest, is_ensemble, read_manifest, rewrite_manifest
from .gallery_files import build_galleries
from .generation import discard_leftovers, index_lock
from .manifest import Manifest, TrainingImage
from .store import Index
from .verify import damaged_files
from .whole import clone_index, manifest_path, put_in_place
from .writer import IndexWriter

__all__ = [
    "EnsembleManifest",
    "Index",
    "IndexWriter",
    "Manifest",
    "TrainingImage",
    "build_galleries",
    "clone_index",
    "damaged_files",
    "discard_leftovers",
    "index_lock",
    "is_ensemble",
    "manifest_path",
    "put_in_place",
    "read_manifest",
    "rewrite_manifest",
]
