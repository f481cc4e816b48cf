"""Float16 patches, and thresholds from a sample of the images."""

import json

import faiss
import numpy as np
import pytest
from typer.testing import CliRunner

from spade_faiss import Spade, SpadeError
from spade_faiss.cli.app import app
from spade_faiss.detector.executor import ThisProcess
from spade_faiss.detector.extract import learn
from spade_faiss.detector.query import query_by
from spade_faiss.index import Index, IndexWriter, Manifest
from spade_faiss.verdict.calibration import calibration_sample
from tests.conftest import texture, with_hole


@pytest.fixture(scope="module")
def both(tiny, tmp_path_factory):
    """The same images' index with float32 and with float16 patches."""
    folder = tmp_path_factory.mktemp("stores")
    for store in ("float32", "float16"):
        Spade(tiny, store=store, k=3).fit(texture("gravel", 6), folder / store)
    return folder


def test_float16_files_are_plain_faiss_indices_of_the_rounded_patches(both):
    whole, half = Index.open(both / "float32"), Index.open(both / "float16")
    assert half.manifest.version == 2 and half.manifest.store == "float16"
    assert "store" not in json.loads((both / "float32" / "manifest.json").read_text())
    for level, rows, rounded in zip(half.manifest.levels, whole.levels, half.levels, strict=True):
        assert rounded.dtype == np.float16 and (rounded == rows.astype(np.float16)).all()
        read = faiss.read_index(str(half.folder / level.file.name))
        assert type(read) is faiss.IndexScalarQuantizer
        assert (read.reconstruct_n(0, 50) == rounded[:50]).all()
        query = np.ascontiguousarray(rounded[[3, 90]], np.float32)
        assert read.search(query, 1)[1].ravel().tolist() == [3, 90]
    sizes = [sum(level.file.bytes for level in index.manifest.levels) for index in (whole, half)]
    assert sizes[1] < 0.51 * sizes[0]
    assert (half.descriptors == whole.descriptors).all()


@pytest.mark.parametrize("engine", ["faiss", "screened"])
def test_maps_equal_a_float64_brute_force_on_the_stored_values(tiny, both, engine):
    spade = Spade.load(both / "float16", backbone=tiny, engine=engine)
    image = with_hole(texture("gravel", 1, 7)[0])
    (result,) = spade.query([image])
    (learnt,) = query_by(spade.pipeline, [image], learn)
    index = spade.index_
    for features, layout, rows, found in zip(
        learnt.parts.levels, index.layouts, index.levels, result.distances, strict=True
    ):
        places = (result.neighbours[:, None] * layout.patches + np.arange(layout.patches)).ravel()
        gallery = rows[places].astype(np.float64)
        queries = features[0].numpy().astype(np.float64)[::17]
        true = np.sqrt([np.square(gallery - query).sum(1).min() for query in queries])
        np.testing.assert_allclose(found.ravel()[::17], true, rtol=1e-5)
    (other,) = Spade.load(both / "float32", backbone=tiny, engine=engine).query([image])
    assert abs(result.peak / other.peak - 1) < 1e-3


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_float16_stays_when_images_come_and_go(tiny, tmp_path, preset):
    from spade_faiss.images import Frame

    views = [Frame(f"{i}.png", view) for i, view in enumerate(texture("gravel", 5))]
    spade = Spade(tiny, store="float16", preset=preset, k=2).fit(iter(views[:4]), tmp_path / "i")
    before = [level.copy() for level in spade.index_.levels]
    other = Spade.load(tmp_path / "i", backbone=tiny)
    assert other.settings.store == "float16" and other.add([views[4]]) == 1
    index = Index.open(tmp_path / "i")
    assert index.manifest.store == "float16"
    for old, new in zip(before, index.levels, strict=True):
        assert (new[: len(old)] == old).all()
    assert other.remove(["4.png"]) == 1
    for old, new in zip(before, other.index_.levels, strict=True):
        assert (new == old).all()
    np.testing.assert_allclose(
        other.index_.manifest.calibration.peaks, spade.index_.manifest.calibration.peaks, rtol=1e-6
    )


def test_features_beyond_float16_are_refused(tmp_path):
    writer = IndexWriter(tmp_path, 2, [(1, 1, 3)], "float16")
    crops = np.zeros((1, 4, 4, 3), np.uint8)
    fine = np.array([[-65000, 65000, 0]], np.float32)
    writer.append(np.zeros((1, 2), np.float32), [fine], crops)
    with pytest.raises(SpadeError, match="too large for float16"):
        writer.append(np.zeros((1, 2), np.float32), [fine * 1.1], crops)
    writer.abandon()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"store": "float8"}, "unknown store"),
        ({"store": "float16", "factory": "HNSW8"}, "float32"),
        ({"store": "float16", "coreset": 0.1}, "float32"),
        ({"calibrated": 0}, "calibrated"),
    ],
)
def test_stores_that_cannot_be_are_explained(tiny, options, why):
    with pytest.raises(SpadeError, match=why):
        Spade(tiny, **options)


def test_a_sample_gives_the_scores_that_all_images_would(tiny, tmp_path):
    views = texture("gravel", 9)
    every = Spade(tiny, k=3).fit(views, tmp_path / "all").index_.manifest.calibration
    assert every.sample is None
    some = Spade(tiny, k=3, calibrated=4).fit(views, tmp_path / "some")
    manifest = Manifest.read(tmp_path / "some")
    made = manifest.calibration
    assert manifest.version == 2 and len(made.sample) == 4 == len(made.peaks)
    assert made.sample == tuple(calibration_sample([f"image {i}" for i in range(9)], 4).tolist())
    for name in ("peaks", "descriptor_scores"):
        expected = [getattr(every, name)[i] for i in made.sample]
        np.testing.assert_allclose(getattr(made, name), expected, rtol=1e-6)
    shown = CliRunner().invoke(app, ["info", str(tmp_path / "some")]).output
    assert "from 4 of the images" in shown
    assert Spade.load(tmp_path / "some").settings.calibrated == 4
    assert some.with_options(quantile=0.9).pixel_threshold < made.pixel_threshold


def test_what_was_scored_is_not_scored_again(tiny, tmp_path):
    from spade_faiss.images import Frame

    views = [Frame(f"{i}.png", view) for i, view in enumerate(texture("gravel", 8))]
    brick = Frame("brick.png", texture("brick", 1)[0])
    spade = Spade(tiny, k=2, calibrated=5).fit(iter(views), tmp_path / "i")
    old = spade.index_.manifest
    names = [image.path for image in old.images]
    before = dict(
        zip([names[i] for i in old.calibration.sample], old.calibration.peaks, strict=True)
    )
    scored = []

    class Counting(ThisProcess):
        def map(self, pipeline, calls):
            for call, what in calls:
                scored.append(what)
                yield call(pipeline)

    spade = spade.on(Counting())
    spade.add([brick])  # is no gravel's neighbour
    new = spade.index_.manifest
    names = [image.path for image in new.images]
    again = dict(
        zip([names[i] for i in new.calibration.sample], new.calibration.peaks, strict=True)
    )
    scored = [what for what in scored if "maps" in what]
    assert len(again) == 5 and len(scored) == len(set(again) - set(before)) <= 1
    assert all(again[name] == before[name] for name in set(again) & set(before))


def test_the_sample_is_fixed_and_mostly_stays():
    names = [f"parts/{i}.png" for i in range(300)]
    chosen = calibration_sample(names, 100)
    assert (chosen == calibration_sample(names, 100)).all() and len(set(chosen.tolist())) == 100
    assert (np.diff(chosen) > 0).all() and 80 < np.median(chosen) < 220
    more = calibration_sample([*names, *(f"new/{i}.png" for i in range(30))], 100)
    assert len(set(more.tolist()) & set(chosen.tolist())) >= 80
    assert (calibration_sample(names, 300) == np.arange(300)).all()
    assert len(calibration_sample(["same"] * 5, 2)) == 2
