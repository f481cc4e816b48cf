"""Data sets of known defects: MVTec AD's layout, a small one made here, published results."""

from .demo import make_demo
from .mvtec import Category, TestImage, load_mvtec, read_mask
from .tables import published_mvtec, published_stc

__all__ = [
    "Category",
    "TestImage",
    "load_mvtec",
    "make_demo",
    "published_mvtec",
    "published_stc",
    "read_mask",
]
