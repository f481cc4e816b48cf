import json
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from spade_faiss import Spade, SpadeError
from spade_faiss.index import Index, Manifest, damaged_files, gallery_files
from spade_faiss.index.manifest import DataFile
from tests.command import TINY, done
from tests.conftest import texture
from tests.full_disk import no_file_over

WAYS = [
    {"factory": "Flat"},
    {"factory": "IVF32,Flat"},
    {"factory": "HNSW16"},
    {"factory": "PQ8x4"},
    {"factory": "PCA4,IVF16,PQ4x4,RFlat", "search_params": "nprobe=8,k_factor_rf=2"},
    {"factory": "PCA4,SQ8"},
    {"coreset": 0.2},
    {"coreset": 0.2, "factory": "IVF8_HNSW8,Flat"},
]


@pytest.fixture(scope="module")
def five(gravel_folder):
    return sorted(gravel_folder.iterdir())[:5]


@pytest.fixture(scope="module")
def exact(tiny, five, tmp_path_factory):
    return Spade(tiny).fit(five, tmp_path_factory.mktemp("exact") / "index")


@pytest.fixture(scope="module")
def built(tiny, five, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "index"
    Spade(tiny, k=2, factory="IVF16,Flat", coreset=0.1).fit(five, folder)
    return folder


@pytest.fixture
def index(built, tmp_path):
    return shutil.copytree(built, tmp_path / "index")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_every_kind_is_built_kept_loaded_and_searched(tiny, exact, five, tmp_path, way, capfd):
    spade = Spade(tiny, **way).fit(five, tmp_path / "index")
    assert "clustering" not in capfd.readouterr().err
    loaded = Spade.load(tmp_path / "index", backbone=tiny)
    assert (loaded.settings.factory, loaded.settings.coreset) == (
        way.get("factory"),
        way.get("coreset"),
    )
    new = texture("gravel", 2, seed=9)
    expected, found = list(exact.query(new)), list(loaded.query(new))
    for a, b, again in zip(expected, found, spade.query(new), strict=True):
        assert np.array_equal(b.map, again.map)
        for level in range(3):
            # Distances are those to the patches that are named, and these are the level's rows.
            assert b.matches[level].max() < len(exact.index_.levels[level])
            assert (b.distances[level] >= a.distances[level] * (1 - 1e-4)).all()
        if way == {"factory": "Flat"}:
            np.testing.assert_allclose(b.map, a.map, rtol=1e-4)
        assert b.peak == pytest.approx(a.peak, rel=0.3 if "coreset" in way else 0.03)
    calibration = loaded.index_.manifest.calibration
    assert calibration == loaded.calibration  # not made anew
    assert calibration.pixel_threshold == pytest.approx(
        exact.pixel_threshold, rel=0.3 if "coreset" in way else 0.05
    )


def test_matches_are_the_patches_that_distances_are_to(tiny, built):
    spade = Spade.load(built, backbone=tiny)
    image = texture("gravel", 1, seed=3)
    result = next(spade.query(image))
    framing = spade.index_.manifest.framing.framing()
    features = tiny(framing.apply(image[0])[None])
    for number, patches in enumerate(spade.index_.levels):
        kept = spade.index_.galleries[number].rows
        assert np.isin(result.matches[number], kept).all()
        queries = features.levels[number].numpy()[0].astype(np.float64)
        true = np.sqrt(((queries - patches[result.matches[number]]) ** 2).sum(2))
        np.testing.assert_allclose(result.distances[number], true, rtol=1e-4)


def test_nearly_the_whole_share_gives_nearly_the_exact_scores(tiny):
    train, new = texture("grass", 3), texture("grass", 2, seed=9)
    few = Spade(tiny, coreset=0.99).fit(train, calibrate=False).predict(new)
    assert few.scores == pytest.approx(Spade(tiny).fit(train).predict(new).scores, rel=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"coreset": 0},
        {"coreset": 1},
        {"coreset": -0.1},
        {"coreset": float("nan")},
        {"search_params": "nprobe=4"},
        {"coreset": 0.1, "search_params": "nprobe=4"},
    ],
)
def test_bad_settings_are_explained(settings):
    with pytest.raises(SpadeError):
        Spade(**settings)


def test_a_refused_build_leaves_the_old_index_whole(tiny, index):
    before = Manifest.read(index)
    with pytest.raises(SpadeError, match="PQ7"):
        Spade(tiny, factory="PQ7").fit(texture("brick", 3), index)
    assert Index.open(index).manifest == before
    assert len(list(index.iterdir())) == 3  # manifest, lock, one generation


def test_too_few_patches_after_a_removal(tiny, index):
    spade = Spade(tiny, factory="IVF60,Flat").fit(texture("brick", 2), index)
    names, before = [image.path for image in spade.index_.manifest.images], Manifest.read(index)
    with pytest.raises(SpadeError, match="60 patches or more and there are 49"):
        spade.remove(names[:1])
    assert Index.open(index).manifest == before


def test_a_full_disk_leaves_the_old_index_whole(tiny, index):
    before = Manifest.read(index)
    # No other file is as large as the finest level's graph of 700 kB.
    with no_file_over(500_000), pytest.raises(SpadeError, match="File too large"):
        Spade(tiny, factory="HNSW32").fit(texture("brick", 3), index)
    assert Index.open(index).manifest == before
    assert len(list(index.iterdir())) == 3


def test_every_flipped_byte_is_reported_before_faiss_reads_it(index, monkeypatch):
    manifest = Manifest.read(index)
    files = [file for level in manifest.gallery.levels for file in level.files]
    assert len(files) == 6 and set(files) < set(manifest.files)
    monkeypatch.setattr(gallery_files, "faiss", None)  # to read would fail
    rng = random.Random(0)
    for file in files:
        path = index / file.name
        data = path.read_bytes()
        for at in {0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(4))}:
            changed = bytearray(data)
            changed[at] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
            with pytest.raises(SpadeError, match=path.name):
                Index.open(index)
        path.write_bytes(data)
    assert not damaged_files(index, manifest)


def with_file(folder, path, kind, number=0):
    """Return the manifest with a file of a gallery recorded as it is now."""
    manifest = Manifest.read(folder)
    levels = list(manifest.gallery.levels)
    levels[number] = levels[number].model_copy(update={kind: DataFile.of(path)})
    record = manifest.gallery.model_copy(update={"levels": tuple(levels)})
    return manifest.model_copy(update={"gallery": record})


@pytest.mark.parametrize("rows", [[], [0, 1, 1], [3, 2], [-1, 5], [0, 3920]])
def test_a_coreset_of_impossible_rows_is_refused(index, rows):
    path = next(index.glob("*/level1.coreset.i64"))
    path.write_bytes(np.array(rows, "<i8").tobytes())
    with_file(index, path, "rows").write(index)
    with pytest.raises(SpadeError, match=r"level1\.coreset\.i64 does not hold"):
        Index.open(index)


def test_an_index_of_something_else_is_refused(index):
    path = next(index.glob("*/level1.gallery.faiss"))
    shutil.copy(path.with_name("level2.gallery.faiss"), path)
    with_file(index, path, "index").write(index)
    with pytest.raises(SpadeError, match=r"level1\.gallery\.faiss does not index"):
        Index.open(index)
    path.write_bytes(b"not an index of FAISS at all")
    with_file(index, path, "index").write(index)
    with pytest.raises(SpadeError, match=r"level1\.gallery\.faiss"):
        Index.open(index)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "0123abcd/level1.galleryXfaiss",
        "0123abcd/other.faiss",
        "0123abcd/level1.coreset.u8",
        "0123abcd/levelx.faiss",
    ],
)
def test_a_manifest_names_only_files_of_an_index(name):
    with pytest.raises(ValueError, match="pattern"):
        DataFile(name=name, bytes=1, sha256="0" * 64)


def test_an_index_without_galleries_stays_readable_by_older_programs(exact, built):
    record = json.loads((exact.index_.folder / "manifest.json").read_text())
    assert record["version"] == 1 and "gallery" not in record
    assert not {"mirrored", "scales", "usual"} & set(record)
    record = json.loads((built / "manifest.json").read_text())
    assert record["version"] == 2  # which they name in one line
    record["gallery"]["levels"].pop()
    with pytest.raises(ValueError, match="2 galleries, 3 levels"):
        Manifest.model_validate({k: v for k, v in record.items() if k != "sha256"})


def test_add_and_remove_make_the_galleries_anew(tiny, built, tmp_path):
    spade = Spade.load(shutil.copytree(built, tmp_path / "index"), backbone=tiny)
    before = spade.index_.manifest
    assert spade.add(texture("brick", 1)) == 1
    grown = spade.index_.manifest
    assert grown.gallery.describe() == before.gallery.describe()
    assert len(spade.index_.galleries[0].patches) == round(0.1 * 6 * 784)
    sums = [
        [file.sha256 for level in manifest.gallery.levels for file in level.files]
        for manifest in (before, grown)
    ]
    assert not set(sums[0]) & set(sums[1])
    # The nearest images of the first five are what they were, but not what is searched.
    assert not set(grown.calibration.peaks[:5]) & set(before.calibration.peaks)
    assert spade.remove([grown.images[-1].path]) == 1
    after = spade.index_.manifest
    assert [f.sha256 for v in after.gallery.levels for f in v.files] == sums[0]
    assert after.calibration == before.calibration
    assert Index.open(tmp_path / "index").manifest == after


def test_a_reader_outlives_a_replacement(tiny, index):
    reader = Spade.load(index, backbone=tiny)
    image = texture("gravel", 1, seed=9)
    before = reader.predict(image)
    Spade(tiny).fit(texture("brick", 2), index)
    assert reader.predict(image).scores == before.scores and len(Index.open(index)) == 2


def test_a_copy_has_its_galleries(tiny, built, tmp_path):
    Spade.load(built, backbone=tiny).save(tmp_path / "copy")
    copy = Index.open(tmp_path / "copy")
    assert copy.manifest == Manifest.read(built) and len(copy.galleries) == 3


KILLED_ONCE_WRITTEN = """
import os, signal, sys
from spade_faiss.cli import main
from spade_faiss.index import gallery_files
from tests.tiny import register

register()
last, of = sys.argv.pop(1), gallery_files.DataFile.of

class DataFile(gallery_files.DataFile):
    @classmethod
    def of(cls, path):
        if path.name == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return of(path)

gallery_files.DataFile = DataFile
main()
"""


@pytest.mark.slow
def test_sigkill_while_galleries_are_made_leaves_the_old_index_whole(index, five, tmp_path):
    before = Manifest.read(index)
    for path in five:
        (tmp_path / "train").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "train")
    build = ["build", tmp_path / "train", "--index", index, *TINY]
    build += ["--coreset", "0.3", "--factory", "HNSW32"]
    for name in ("level1.coreset.i64", "level2.gallery.faiss"):
        command = [sys.executable, "-c", KILLED_ONCE_WRITTEN, name, *map(str, build)]
        assert subprocess.run(command).returncode == -signal.SIGKILL
        assert list(index.glob(f"*/{name}")) != [index / before.generation / name]
        assert Index.open(index).manifest == before
    done(*build)
    assert Index.open(index).manifest.gallery.describe() == (
        "HNSW32 (efSearch=64) over a coreset of 0.3"
    )
    assert len([path for path in index.iterdir() if path.is_dir()]) == 1
