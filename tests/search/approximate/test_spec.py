import pytest

from spade_faiss import SpadeError
from spade_faiss.search import GallerySpec

SHAPES = [(56, 56, 24), (28, 28, 40), (14, 14, 112)]


@pytest.mark.parametrize(
    "factory, params, words",
    [
        ("nonsense", None, ["nonsense", "parse"]),
        ("", None, ["''"]),
        ("PQ7", None, ["PQ7", "level 1 (24 channels)", "multiple"]),
        ("PQ12", None, ["level 2 (40 channels)"]),
        ("IVF3000,Flat", None, ["level 3", "3000 patches", "1960"]),
        ("IVF4,PQ4x12", None, ["level 3", "4096", "1960"]),
        ("IDMap,Flat", None, ["add_with_ids"]),
        ("PCA64,Flat", None, ["level 1", "64"]),
        ("HNSW1", None, ["HNSW1", "crashes"]),
        ("Flat", "nprobe=4", ["nprobe=4", "nprobe"]),
        ("IVF4,Flat", "nprobe", ["nprobe"]),
        ("IVF4,Flat", "nprobe=0", ["nprobe=0"]),
        ("HNSW16", "efSearch=8,warp=9", ["warp"]),
    ],
)
def test_what_faiss_refuses_is_one_line_before_the_long_work(factory, params, words):
    with pytest.raises(SpadeError) as caught:
        GallerySpec(factory, None, params).tried(SHAPES, 10)
    line = str(caught.value)
    assert "\n" not in line and ".cpp" not in line
    for word in words:
        assert word in line


def test_parameters_have_sensible_defaults():
    for factory, params in (
        ("IVF8,Flat", "nprobe=8"),
        ("IVF64,Flat", "nprobe=16"),
        ("IVF512,Flat", "nprobe=32"),
        ("HNSW16", "efSearch=64"),
        ("PCA8,IVF64_HNSW8,SQ8", "nprobe=16,efSearch=64"),
        ("Flat", ""),
    ):
        assert GallerySpec(factory).tried(SHAPES[:1], 10).search_params == params
    assert GallerySpec("IVF64,Flat", None, "nprobe=5").tried(SHAPES, 10).search_params == "nprobe=5"
