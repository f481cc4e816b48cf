"""Data sets of known defects: MVTec AD and its kin, any folders, ShanghaiTech, and one made."""

from .category import Category, TestImage
from .demo import make_demo
from .folder import load_folders, load_table
from .loco import DefectsConfig, Saturation
from .masks import read_mask
from .mvtec import load_mvtec
from .stc import Clip, Scene, load_stc
from .tables import published_mvtec, published_stc

__all__ = [
    "Category",
    "Clip",
    "DefectsConfig",
    "Saturation",
    "Scene",
    "TestImage",
    "load_folders",
    "load_mvtec",
    "load_stc",
    "load_table",
    "make_demo",
    "published_mvtec",
    "published_stc",
    "read_mask",
]
