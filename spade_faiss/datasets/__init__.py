"""Data sets of known defects: MVTec AD and its kin, ShanghaiTech Campus, and one made here."""

from .demo import make_demo
from .mvtec import Category, TestImage, load_mvtec, read_mask
from .stc import Clip, Scene, load_stc
from .tables import published_mvtec, published_stc

__all__ = [
    "Category",
    "Clip",
    "Scene",
    "TestImage",
    "load_mvtec",
    "load_stc",
    "make_demo",
    "published_mvtec",
    "published_stc",
    "read_mask",
]
