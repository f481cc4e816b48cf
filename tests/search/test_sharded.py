import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from spade_faiss import Spade, SpadeError
from spade_faiss.search import LevelSearch, ShardedLevel
from tests.conftest import examples, texture, with_hole


@examples(60)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 9),
    per_image=st.integers(1, 20),
    devices=st.integers(2, 5),
    batch=st.integers(1, 5),
    k=st.integers(1, 4),
    cut=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float16]),
)
@example(
    seed=25283031, images=5, per_image=2, devices=3, batch=2, k=2, cut=True, dtype=np.float32
)  # one item has the cut image, the other a whole one in the same shard
def test_shards_together_find_what_one_device_finds(
    seed, images, per_image, devices, batch, k, cut, dtype
):
    rng = np.random.default_rng(seed)
    rows = images * per_image - (rng.integers(per_image) if cut else 0)
    patches = rng.standard_normal((rows, 6)).astype(dtype)
    queries = torch.from_numpy(rng.standard_normal((batch, 11, 6), np.float32))
    most = int(rng.integers(1, images + 1))
    among = torch.from_numpy(np.stack([rng.permutation(images)[:most] for _ in range(batch)]))
    one = LevelSearch(patches, per_image)
    several = ShardedLevel(patches, per_image, ["cpu"] * devices)
    try:
        distances, ids = one.search(queries, among, k, "faiss")
    except ValueError:
        with pytest.raises(ValueError, match="must lie between"):
            several.search(queries, among, k, "faiss")
        return
    found = several.search(queries, among, k, "faiss")
    torch.testing.assert_close(found[0], distances, rtol=1e-6, atol=0)
    assert torch.equal(found[1], ids)


def test_an_index_on_several_devices_gives_the_same_maps(lite, tmp_path):
    good, new = texture("gravel", 7), [with_hole(texture("gravel", 1, 5)[0]), *texture("brick", 2)]
    Spade(lite, k=3).fit(good, tmp_path / "index")
    one = Spade.load(tmp_path / "index", backbone=lite).predict(new)
    several = Spade.load(tmp_path / "index", backbone=lite, device="cpu,cpu,cpu").predict(new)
    np.testing.assert_allclose(several.scores, one.scores, rtol=1e-6)
    for left, right in zip(several.maps, one.maps, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)


def test_a_device_that_fails_is_named(monkeypatch):
    patches = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    level = ShardedLevel(patches, 10, ["cpu", "cpu:0"])
    search = LevelSearch.search
    second = torch.from_numpy(patches[20:])

    def broken(self, queries, *rest):
        if torch.equal(self.patches, second):
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")
        return search(self, queries, *rest)

    monkeypatch.setattr(LevelSearch, "search", broken)
    with pytest.raises(
        SpadeError, match=r"device cpu:0 failed: CUDA error.*`device='cpu'`$"
    ) as got:
        level.search(torch.from_numpy(patches[None, :5]), torch.arange(4)[None], 1, "faiss")
    assert "\n" not in str(got.value)


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ("all", "no GPUs"),
        ("cpu,cuda:0", "cuda:0"),
        ("cpu,nonsense", "nonsense"),
    ],
)
def test_devices_that_are_not_there_are_named(lite, device, why):
    with pytest.raises(SpadeError, match=why):
        Spade(lite, device=device).fit(texture("gravel", 3))
