import gc
import json
import os
import random
import shutil
import subprocess
import sys
import time

import faiss
import numpy as np
import pytest

from spade_faiss import Spade, SpadeError
from spade_faiss.index import (
    Index,
    IndexWriter,
    Manifest,
    damaged_files,
    discard_leftovers,
    index_lock,
    verify,
)
from spade_faiss.index.record import file_sha256
from spade_faiss.index.verify import STAMP, state_of
from tests.conftest import texture
from tests.full_disk import no_file_over


@pytest.fixture(scope="module")
def built(tiny, gravel_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "gravel"
    Spade(tiny).fit(gravel_folder, folder)
    return folder


@pytest.fixture
def index(built, tmp_path):
    return shutil.copytree(built, tmp_path / "index")


def test_rows_are_where_the_contract_says(tiny, gravel_folder, built):
    index = Index.open(built)
    images = [v.path for v in index.manifest.images]
    assert images == sorted(str(path) for path in gravel_folder.iterdir())
    features = tiny(np.asarray(index.crops[3:4]))
    for number, level in enumerate(index.manifest.levels):
        expected = features.levels[number].numpy()[0]
        for x, y in ((0, 0), (level.width - 1, 0), (3, level.height - 2)):
            row = 3 * (level.height * level.width) + y * level.width + x
            np.testing.assert_allclose(
                index.levels[number][row], expected[y, x], rtol=1e-3, atol=1e-3
            )


def test_files_are_plain_faiss_indices(built):
    manifest = Manifest.read(built)
    for file, rows in zip(manifest.files[:-1], (10, 7840, 1960, 490), strict=True):
        read = faiss.read_index(str(built / file.name))
        assert type(read) is faiss.IndexFlatL2 and read.ntotal == rows
        _, ids = read.search(read.reconstruct_n(0, 4), 1)
        assert ids[:, 0].tolist() == [0, 1, 2, 3]


def test_one_flipped_byte_in_any_file_is_reported_by_name(index):
    files = [
        path
        for path in index.rglob("*")
        if path.is_file() and path.name not in (".lock", "verified.json")
    ]
    assert len(files) == 6
    rng = random.Random(0)
    for path in files:
        data = path.read_bytes()
        for at in {0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(4))}:
            changed = bytearray(data)
            changed[at] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
            with pytest.raises(SpadeError, match=path.name) as caught:
                Index.open(index)
            assert "\n" not in str(caught.value)
        path.write_bytes(data)
    assert not damaged_files(index, Manifest.read(index))


@pytest.fixture
def soon(monkeypatch):
    """Have files count as settled soon: the disk that the tests use tells short times apart."""
    monkeypatch.setattr(verify, "SETTLED", 0.1)


def settle(index):
    """Let a file's next change bear another time than its last one did."""
    time.sleep(0.15)
    assert len(Index.open(index)) == 10  # found whole, and long enough unchanged


def test_files_found_good_are_not_read_again_until_they_change(index, soon, monkeypatch):
    read = []
    monkeypatch.setattr(
        verify, "file_sha256", lambda path: read.append(path.name) or file_sha256(path)
    )
    settle(index)
    assert len(read) == 5
    Index.open(index)
    assert len(read) == 5
    path = index / Manifest.read(index).levels[0].file.name
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(1000)
        old = file.read(1)
        file.seek(1000)
        file.write(bytes([old[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SpadeError, match=r"level1\.faiss is damaged"):
        Index.open(index)
    assert read[5:] == ["level1.faiss"]


def test_a_copy_is_read_once_more(index, soon, tmp_path, monkeypatch):
    settle(index)
    copy = shutil.copytree(index, tmp_path / "copy")
    read = []
    monkeypatch.setattr(verify, "file_sha256", lambda path: read.append(path.name) or "0" * 64)
    with pytest.raises(SpadeError, match="is damaged"):
        Index.open(copy)
    assert len(read) == 5


def test_verify_reads_everything_and_what_it_finds_is_not_forgotten(index, soon):
    """Bits that a disk changed by itself: the file looks as it did when it was found whole."""
    settle(index)
    manifest = Manifest.read(index)
    path = index / manifest.crops.name
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    stamp = index / manifest.generation / STAMP
    looks = json.loads(stamp.read_text())
    looks[manifest.crops.name] = state_of(path, manifest.crops)
    stamp.write_text(json.dumps(looks))
    Index.open(index)
    assert "crops.u8 is damaged" in damaged_files(index, manifest)[0]
    with pytest.raises(SpadeError, match=r"crops\.u8 is damaged"):
        Index.open(index)


@pytest.mark.parametrize("stamp", [b"", b"[]", b"{}", b'{"a": 1}', b"\xff\x00"])
def test_a_stamp_that_makes_no_sense_is_as_none(index, stamp):
    (index / Manifest.read(index).generation / "verified.json").write_bytes(stamp)
    assert len(Index.open(index)) == 10


def test_missing_and_shortened_files_are_reported(index):
    manifest = Manifest.read(index)
    level = index / manifest.levels[1].file.name
    with level.open("r+b") as file:
        file.truncate(1000)
    (index / manifest.crops.name).unlink()
    lines = damaged_files(index, manifest)
    assert len(lines) == 2 and "level2.faiss is damaged: 1000 bytes" in lines[0]
    assert "crops.u8 cannot be read" in lines[1]


def test_what_vanishes_while_it_is_opened_is_one_line(index):
    (index / Manifest.read(index).levels[1].file.name).unlink()
    with pytest.raises(SpadeError, match="could not open"):
        Index.open(index, verify=False)


def test_a_folder_without_index_says_how_to_make_one(tmp_path):
    with pytest.raises(SpadeError, match=r"make one with: `fit\(images, index=.*`"):
        Index.open(tmp_path)
    with pytest.raises(SpadeError, match="make one with: `fit"):
        Index.open(tmp_path / "gone")


def test_another_version_is_refused(index):
    record = json.loads((index / "manifest.json").read_text())
    record["version"] = 99
    (index / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(SpadeError, match="version 99"):
        Manifest.read(index)


def test_a_manifest_cannot_lead_out_of_the_folder(index):
    manifest = Manifest.read(index)
    with pytest.raises(ValueError, match="pattern"):
        type(manifest.crops)(name="../../etc/passwd", bytes=1, sha256="0" * 64)


def test_reading_maps_files_and_does_not_load_them(tiny, gravel_folder, tmp_path):
    large = tmp_path / "index"
    Spade(tiny, resize=1024, crop=1024).fit(gravel_folder, large, calibrate=False)
    code = (
        "import sys, re; from spade_faiss.index import Index; import numpy as np\n"
        "def anon(): return int(re.search(r'RssAnon:\\s+(\\d+)',"
        " open('/proc/self/status').read())[1])\n"
        "import faiss; faiss.IndexFlatL2(4); before = anon(); index = Index.open(sys.argv[1])\n"
        "total = [float(level[::7].sum()) for level in index.levels]; print(anon() - before)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(large)], capture_output=True, text=True, check=True
    )
    size = sum(path.stat().st_size for path in large.rglob("*.faiss"))
    # To read files for their checksums takes 256 KiB for each at a time.
    assert size > 8 << 20
    assert int(out.stdout) * 1024 < size / 2, out.stdout


def test_arrays_outlive_their_index(built):
    whole = Index.open(built).levels[0].copy()
    alone = Index.open(built).levels[0]
    gc.collect()
    np.testing.assert_array_equal(alone, whole)


def test_two_writers_do_not_meet(built):
    with index_lock(built), pytest.raises(SpadeError, match="another process"), index_lock(built):
        pass


def test_a_folder_with_other_things_is_left_alone(tiny, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SpadeError, match=r"thesis\.tex"):
        Spade(tiny).fit(texture("brick", 2), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_failed_build_leaves_the_old_index_whole(tiny, index, tmp_path):
    before = Manifest.read(index)
    (tmp_path / "bad.png").write_bytes(b"text")
    with pytest.raises(SpadeError, match="none of the images"):
        Spade(tiny).fit([tmp_path / "bad.png"], index, on_error=lambda *_: None)
    with pytest.raises(SpadeError, match=r"bad\.png"):
        Spade(tiny).fit([*texture("brick", 3), tmp_path / "bad.png"], index)
    assert Index.open(index).manifest == before
    assert len(list(index.iterdir())) == 3  # manifest, lock, one generation


def test_a_reader_outlives_a_replacement(tiny, index):
    reader = Spade.load(index, backbone=tiny)
    image = texture("gravel", 1, seed=9)
    before = reader.predict(image)
    Spade(tiny).fit(texture("brick", 3), index)
    again = reader.predict(image)
    assert before.scores == again.scores and len(Index.open(index)) == 3


@pytest.mark.parametrize("old", [pytest.param(0, marks=pytest.mark.slow), 10])
@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_sigkill_at_any_step_leaves_none_or_a_whole_one(built, gravel_folder, tmp_path, old, step):
    folder = tmp_path / "index"
    if old:
        shutil.copytree(built, folder)
    arguments = [str(folder), str(gravel_folder), str(old), str(step)]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.index.killed", *arguments], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout.split()[-1]) > 20 / step


@pytest.mark.parametrize(
    ("kind", "step", "left"),
    [
        (IndexWriter, "__init__", 10),
        (Manifest, "write", 3),
    ],
)
def test_what_is_stopped_just_after_a_step_leaves_what_counts_whole(
    tiny, index, monkeypatch, kind, step, left
):
    """As a signal may: once files are made and nobody holds them yet, and once they count."""
    whole, made = getattr(kind, step), []

    def stopped(self, *arguments, **named):
        whole(self, *arguments, **named)
        made.append(self)
        raise SystemExit(143)

    monkeypatch.setattr(kind, step, stopped)
    with pytest.raises(SystemExit):
        Spade(tiny).fit(texture("brick", 3), index, calibrate=False)
    if kind is IndexWriter:
        made[0].abandon()  # which nobody else could
    assert len(Index.open(index)) == left
    assert len([path for path in index.iterdir() if path.is_dir()]) == 1


def test_a_full_disk_leaves_the_old_index_whole(tiny, index):
    before = Manifest.read(index)
    # The finest level's patches take 75 kB.
    with no_file_over(60_000), pytest.raises(SpadeError, match="File too large"):
        Spade(tiny).fit(texture("brick", 3), index)
    assert Index.open(index).manifest == before
    assert len(list(index.iterdir())) == 3


def test_what_does_not_fit_on_the_disk_is_removed_though_closing_fails_too(tmp_path):
    writer = IndexWriter(tmp_path, 4, [(2, 2, 3)])
    writer.append(
        np.zeros((1, 4), np.float32),
        [np.zeros((4, 3), np.float32)],
        np.zeros((1, 2, 2, 3), np.uint8),
    )
    with no_file_over(0):
        with pytest.raises(OSError, match="File too large"):
            writer.finish()
        writer.abandon()
    discard_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())
