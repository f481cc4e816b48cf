"""All stages on one device, with nothing that waits in between: here on the CPU, interpreted."""

import numpy as np
import pytest
import torch

from spade_faiss import Spade, SpadeError
from spade_faiss.detector.executor import in_advance
from spade_faiss.detector.gpu import GpuPass, nearest_descriptors
from spade_faiss.detector.under_way import Made
from spade_faiss.images.roi import Roi
from tests.conftest import texture, with_hole

pytest.importorskip("triton", reason="needs triton, which comes with torch for CUDA")

from spade_faiss.search.cuda import FusedSearch
from spade_faiss.search.cuda.screen import Limits

GOOD = texture("gravel", 6)
NEW = [with_hole(texture("gravel", 1, 5)[0]), *texture("brick", 1), GOOD[0]]
SMALL = {"resize": 64, "crop": 64}
HALF = np.zeros((256, 256), bool)
HALF[:, :150] = True


class Again:
    """Stands for `Recording`, of which a GPU is needed: one place for pixels, one for results."""

    made = 0

    def __init__(self, work, pixels):
        Again.made += 1
        self.work, self.pixels = work, pixels.clone()
        self.found = work(self.pixels)

    def __call__(self, pixels):
        self.pixels.copy_(pixels)
        found = self.work(self.pixels)
        for name in ("near", "images", "on_input", "complete"):
            getattr(self.found, name).copy_(getattr(found, name))
        for name in ("distances", "matches"):
            for mine, now in zip(getattr(self.found, name), getattr(found, name), strict=True):
                mine.copy_(now)
        return self.found


@pytest.fixture
def served(monkeypatch):
    """Have queries take the one pass here, too; return those that were made."""
    made = []

    def of(pipeline):
        if not made or made[-1][0] is not pipeline:
            made.append((pipeline, GpuPass(pipeline)))
        return made[-1][1]

    monkeypatch.setattr(GpuPass, "of", of)
    return made


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"mirror": True, "sigma": 0}, marks=pytest.mark.slow),
        {"preset": "best"},
        pytest.param(
            {"preset": "best", "crop": None, "region": Roi(HALF), "min_area": 20},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["paper", "mirror", "best", "best in a region"],
)
def test_it_finds_what_the_stages_find_one_by_one(tiny, served, monkeypatch, settings):
    spade = Spade(tiny, **SMALL | {"k": 3, "batch_size": 2} | settings).fit(GOOD)
    found = list(spade.query(NEW))
    assert served and served[-1][1].serves
    monkeypatch.setattr(GpuPass, "of", lambda pipeline: None)
    for one, other in zip(found, spade.query(NEW), strict=True):
        assert np.array_equal(one.neighbours, other.neighbours)
        assert one.descriptor_score == pytest.approx(other.descriptor_score, rel=1e-6)
        assert one.mean_score == pytest.approx(other.mean_score, rel=1e-5)
        assert (one.training_image, one.notes) == (other.training_image, other.notes)
        assert np.array_equal(one.input, other.input)
        for level, there in zip(one.distances, other.distances, strict=True):
            np.testing.assert_allclose(level, there, rtol=1e-5, atol=1e-5)
        for level, there in zip(one.matches, other.matches, strict=True):
            assert np.array_equal(level < 0, there < 0)  # of what is not looked at
        for level, there in ((one.map, other.map), (one.input_map, other.input_map)):
            assert level.dtype == np.float32
            np.testing.assert_allclose(level, there, rtol=1e-4, atol=1e-5 * there.max())
            assert np.array_equal(level == 0, there == 0) or not settings
    assert found[2].training_image and found[2].peak == 0


@pytest.mark.slow
def test_images_of_several_sizes_are_placed_each_on_its_own(tiny, served, monkeypatch):
    spade = Spade(tiny, **SMALL, k=2).fit(GOOD)
    new = [NEW[0], np.ascontiguousarray(NEW[1][:, :200]), np.ascontiguousarray(NEW[0][:180])]
    found = [one.map for one in spade.query(new)]
    monkeypatch.setattr(GpuPass, "of", lambda pipeline: None)
    for one, other in zip(found, spade.query(new), strict=True):
        np.testing.assert_allclose(one, other.map, rtol=1e-4, atol=1e-4)
    assert [one.shape for one in found] == [(256, 256), (256, 200), (180, 256)]


@pytest.mark.slow
def test_what_comes_again_and_again_is_recorded_and_results_are_kept_apart(tiny):
    spade = Spade(tiny, **SMALL, k=2).fit(GOOD)
    pipeline, before = spade.pipeline, Again.made
    recorded = GpuPass(pipeline, Again)
    new = [*NEW[:2], NEW[0], NEW[1]]
    shown = [pipeline.framing.apply(image)[None] for image in new]
    found = [recorded.begin(one, [(256, 256)]).found()[0] for one in shown]
    assert Again.made == before + 1
    for one, other in zip(found, spade.query(new), strict=True):
        # The last did not write over those before it.
        np.testing.assert_allclose(one.placed, other.map, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one.on_input, other.input_map, rtol=1e-4, atol=1e-4)
    recorded.begin(shown[0], [(200, 200)])  # sizes have no part in it, but numbers have
    for _ in range(2):
        recorded.begin(np.concatenate(shown[:2]), [(256, 256)] * 2)
    assert Again.made == before + 1
    recorded.begin(np.concatenate(shown[:2]), [(256, 256), (200, 200)])
    assert Again.made == before + 2


@pytest.mark.slow
def test_work_that_cannot_be_recorded_is_started_each_time(tiny):
    spade = Spade(tiny, **SMALL, k=2).fit(GOOD)
    tried = []

    def refuse(work, pixels):
        tried.append(pixels.shape)
        raise RuntimeError("no graphs here")

    there = GpuPass(spade.pipeline, refuse)
    shown = spade.pipeline.framing.apply(NEW[0])[None]
    peaks = {float(there.begin(shown, [(256, 256)]).found()[0].placed.max()) for _ in range(4)}
    assert len(tried) == 1 and peaks == {next(spade.query(NEW[0])).peak}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("preset", ["paper", "best"])
def test_features_that_are_no_numbers_are_told_of_as_ever(tiny, served, monkeypatch, preset):
    spade = Spade(tiny, **SMALL, k=2, preset=preset).fit(GOOD)
    network = spade.pipeline.network

    class Broken(torch.nn.Module):
        def forward(self, x):
            descriptor, levels = kept(x)
            return descriptor, [levels[0] * torch.nan, *levels[1:]]

    kept = network._network
    monkeypatch.setattr(network, "_network", Broken())
    with pytest.raises(SpadeError, match="not finite; its weights may be damaged"):
        list(spade.query(NEW[:1]))
    assert served


def test_more_sizes_than_are_kept_are_placed(tiny, monkeypatch):
    spade = Spade(tiny, **SMALL, k=2).fit(GOOD)
    there = GpuPass(spade.pipeline)

    def nothing(pixels):
        zeros = torch.zeros(len(pixels), 64, 64)
        return Made(zeros[:, 0].double(), zeros[:, 0].long(), (), (), zeros, torch.tensor(True))

    monkeypatch.setattr(there, "_compute", nothing)
    for first in (100, 130, 100):
        sizes = [(first + i, 200) for i in range(40)]
        found = there.begin(np.zeros((40, 64, 64, 3), np.uint8), sizes).found()
        assert [one.placed.shape for one in found] == sizes


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_a_search_without_room_leaves_it_to_the_stages(tiny, monkeypatch, preset):
    """Of contrast, too, where what was not found is no row to look up."""
    spade = Spade(tiny, **SMALL, k=2, preset=preset).fit(GOOD)
    expected = [one.map for one in spade.query(NEW[:1])]
    there, begun = GpuPass(spade.pipeline), []
    whole = FusedSearch

    def without_room(*arguments):
        begun.append(arguments)
        return whole(*arguments, limits=Limits(pairs=4))

    monkeypatch.setattr("spade_faiss.search.cuda.FusedSearch", without_room)
    monkeypatch.setattr(GpuPass, "of", lambda pipeline: there)
    searches = []
    for _ in range(5):
        (found,) = spade.query(NEW[:1])
        assert np.array_equal(found.map, expected[0])
        searches.append(len(begun))
    assert searches[0] > 0 and searches[4] == searches[3] == searches[2]  # it gives up


@pytest.mark.slow
def test_memory_that_does_not_suffice_leaves_it_to_the_stages(tiny, monkeypatch):
    spade = Spade(tiny, **SMALL, k=2).fit(GOOD)
    expected = [one.peak for one in spade.query(NEW)]
    there, tried = GpuPass(spade.pipeline), []

    def short(self, pixels):
        tried.append(len(pixels))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(GpuPass, "_compute", short)
    monkeypatch.setattr(GpuPass, "of", lambda pipeline: there)
    for _ in range(2):
        assert [one.peak for one in spade.query(NEW)] == pytest.approx(expected, rel=1e-5)
    assert tried == [3]  # the same is not tried again


def test_very_large_pictures_go_stage_by_stage(tiny):
    spade = Spade(tiny, **SMALL, k=2).fit(GOOD)
    shown = spade.pipeline.framing.apply(NEW[0])[None]
    assert GpuPass(spade.pipeline).begin(shown, [(10_000, 10_000)]) is None


@pytest.mark.parametrize(
    "settings",
    [{"kappa": 2}, {"tile": 128, "crop": None, "resize": None}, {"engine": "faiss"}],
    ids=["kappa", "tiles", "faiss"],
)
def test_what_does_not_suit_is_left_to_the_stages(tiny, settings):
    spade = Spade(tiny, **SMALL | {"k": 2} | settings).fit(GOOD)
    assert GpuPass.of(spade.pipeline) is None


def test_nearest_descriptors_are_those_of_float64_and_the_first_of_equals():
    rng = np.random.default_rng(0)
    rows = rng.random((40000, 16), np.float32)
    rows[30000] = rows[7]
    queries = np.stack([rows[7], rng.random(16, np.float32)])
    near, ids = nearest_descriptors(torch.from_numpy(queries), torch.from_numpy(rows), 5)
    apart = np.square(queries[:, None].astype(np.float64) - rows[None]).sum(2)
    assert ids[0, :2].tolist() == [7, 30000] and near[0, :2].tolist() == [0, 0]
    np.testing.assert_allclose(near, np.sort(apart, 1)[:, :5], rtol=1e-9, atol=1e-12)
    assert np.array_equal(ids[1], np.argsort(apart[1])[:5])


def test_values_are_asked_for_in_advance_and_a_failure_comes_after_those_before_it():
    asked = []

    def values():
        for i in range(5):
            asked.append(i)
            if i == 4:
                raise ValueError("the fifth")
            yield i

    ahead = in_advance(values(), 2)
    assert next(ahead) == 0 and asked == [0, 1, 2]
    assert [next(ahead) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="the fifth"):
        next(ahead)
    asked.clear()
    one_by_one = in_advance(values(), 0)
    assert next(one_by_one) == 0 and asked == [0]
    assert list(in_advance([], 2)) == [] and list(in_advance([1], 2)) == [1]
