import cv2
import numpy as np
import pytest
from PIL import Image

from spade_faiss import Ensemble, Spade
from spade_faiss.images import Frame, Framing, sizes_of
from spade_faiss.images.choose import framing_of_most
from spade_faiss.images.coverage import looked_at_share
from spade_faiss.index.manifest import FramingRecord, TrainingImage
from spade_faiss.verdict.notes import BatchNotes, image_notes, index_notes
from tests.conftest import texture


def views(*sizes):
    """Return one gravel image of each height and width."""
    photo = texture("gravel", 1)[0]
    return [np.ascontiguousarray(np.resize(photo, (*size, 3))) for size in sizes]


def fitted(tiny, images, **settings):
    return Spade(tiny, resize=64, engine="faiss", **{"crop": 56} | settings).fit(
        images, calibrate=False
    )


def test_the_share_that_is_seen_is_counted_in_pixels():
    paper = Framing.choose(256, 224, (1, 1))
    assert (
        looked_at_share(paper, (256, 256))
        == looked_at_share(paper, (1024, 1024))
        == (224 / 256) ** 2
    )
    # A strip of 500 x 2000 becomes 256 x 1024, and the middle 224 x 224 is seen.
    assert looked_at_share(paper, (500, 2000)) == pytest.approx(224**2 / (256 * 1024), rel=0.01)
    assert looked_at_share(Framing.choose(256, None, (300, 500)), (300, 500)) == 1


@pytest.mark.parametrize("resize", [64, 256, 320])
def test_rounding_to_cells_is_no_stretch(resize):
    for size in [(100, 100), (300, 400), (1080, 1920), (2000, 30), (333, 777), (171, 250)]:
        assert Framing.choose(resize, None, size).stretch(*size) == 1
    square = Framing.choose(256, None, (50, 50))
    assert square.size == (256, 256)
    # Twice as far, less what rounding may do: 272 pixels may have become 256.
    assert square.stretch(100, 200) == square.stretch(200, 100) == pytest.approx(2 * 256 / 272)


def test_the_shape_is_that_of_most_images(tiny):
    strip, *others = images = views((64, 256), (100, 100), (120, 120), (100, 104))
    assert framing_of_most(64, None, [one.shape[:2] for one in images]).size == (64, 64)
    spade = fitted(tiny, images, crop=None)
    assert spade.index_.manifest.framing.framing().size == (64, 64)
    # Of a stream, which is not held, the first image tells.
    spade = fitted(tiny, iter([strip, *others]), crop=None)
    assert spade.index_.manifest.framing.framing().size == (64, 256)
    assert framing_of_most(64, None, []).size == (64, 64)
    assert framing_of_most(64, None, [(64, 256), (64, 64)]).size == (64, 256)  # the first of two


@pytest.mark.parametrize(
    "suffix, kind",
    [("png", "png"), ("jpg", "jpeg"), ("bmp", "bmp"), ("tiff", "tiff"), ("webp", "webp")],
)
def test_sizes_come_from_headers_alone(tmp_path, suffix, kind):
    path = tmp_path / f"a.{suffix}"
    Image.effect_noise((300, 120), 90).convert("RGB").save(path, kind)
    data = path.read_bytes()
    if kind not in ("tiff", "webp"):  # whose tags may stand at the end; which is opened whole
        path.write_bytes(data[: len(data) // 2])
    assert sizes_of([path]) == ([(120, 300)], [path])


def test_sizes_are_those_of_upright_images(tmp_path):
    image = Image.new("RGB", (60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [
        tmp_path / "a.png",
        tmp_path / "b.jpg",
        tmp_path / "plain.png",
        tmp_path / "no.png",
        tmp_path / "gone.png",
    ]
    for path in paths[:2]:
        image.save(path, exif=exif)
    image.save(paths[2])
    paths[3].write_bytes(b"no image")
    deep = tmp_path / "deep.tiff"
    cv2.imwrite(str(deep), np.zeros((40, 60, 3), np.uint16))
    assert sizes_of(paths)[0] == [(60, 40), (60, 40), (40, 60)]
    assert sizes_of([deep, np.zeros((9, 8), np.uint8), Frame("f", np.zeros((7, 6, 3), np.uint8))])[
        0
    ] == [(40, 60), (9, 8), (7, 6)]


@pytest.fixture(scope="module")
def manifest(tiny):
    return fitted(tiny, views((64, 64), (64, 64))).index_.manifest


def said_of(manifest, *sizes, crop=56, k=50):
    """Return the notes of an index of images of these heights and widths."""
    framing = framing_of_most(64, crop, sizes)
    return index_notes(
        manifest.model_copy(
            update={
                "images": tuple(
                    TrainingImage(path=f"{i}.png", height=size[0], width=size[1])
                    for i, size in enumerate(sizes)
                ),
                "framing": FramingRecord(
                    resize=64, height=framing.size[0], width=framing.size[1], crop=framing.crop
                ),
            }
        ),
        k,
    )


def test_an_index_says_how_little_of_its_images_is_seen(manifest):
    (note,) = said_of(manifest, *[(64, 512)] * 3)
    assert note == (
        "seen only in part: all 3 images of the index, 9.6 % of 512x64 pixels; "
        "an index built with `crop=None` sees all of them"
    )
    (note,) = said_of(manifest, (64, 64), (64, 512), (512, 64), (64, 64))
    assert note.startswith(
        "seen only in part: 2 of the index's 4 images, 1.png (9.6 % of 512x64 "
        "pixels), 2.png (9.6 % of 64x512 pixels); "
    )
    assert said_of(manifest, (64, 64), (60, 80), (64, 90)) == ()


def test_an_index_names_images_of_another_shape(manifest):
    sizes = [(64, 64), (64, 64), (64, 128), (64, 66)]
    assert said_of(manifest, *sizes, crop=None) == (
        "stretched out of shape: 1 of the index's 4 images, 128x64 pixels, 1.6 times as far one "
        "way as the other; an index of their own would suit them better",
    )


def test_k_above_the_number_of_images_is_noted(manifest):
    sizes = [(64, 64)] * 2
    assert said_of(manifest, *sizes, k=50) == ()  # the default, whatever the number
    assert said_of(manifest, *sizes, k=2) == ()
    assert said_of(manifest, *sizes, k=3) == (
        "K = 3 is more than the index's 2 images: a query is compared with all of them",
    )


def test_detectors_have_the_notes_of_their_index(tiny):
    images = views((64, 64), (64, 64), (64, 128))
    ensemble = Ensemble.of([tiny], ["flip"], resize=64, crop=None, k=4, engine="faiss").fit(images)
    own = ensemble.members[1].notes
    assert [note.split(":")[0] for note in own[:2]] == [
        "stretched out of shape",
        "K = 4 is more than the index's 3 images",
    ]
    assert ensemble.notes[: len(own)] == own
    assert "the threshold rests on" in ensemble.notes[-1]  # which is the ensemble's alone


def test_a_result_says_how_little_of_the_image_was_seen(tiny):
    spade = fitted(tiny, views((64, 64), (64, 70)))
    strip, square = views((64, 1024), (64, 64))
    assert [one.notes for one in spade.query([strip, square])] == [
        ("seen only in part: 4.8 % of 1024x64 pixels",),
        ("in the index itself: as image 0",),
    ]


def test_where_the_indexs_images_are_strips_that_is_its_own_note(manifest):
    strips = manifest.model_copy(
        update={
            "images": tuple(
                TrainingImage(path="a", height=64, width=width) for width in (64, 1024, 1024)
            )
        }
    )
    assert image_notes(strips, (64, 1024)) == image_notes(strips, (64, 512)) == ()
    assert image_notes(strips, (64, 2048)) == ("seen only in part: 2.4 % of 2048x64 pixels",)


def test_a_result_says_that_the_image_was_stretched(tiny):
    images = views((64, 64), (64, 64), (64, 64), (200, 100))
    ensemble = Ensemble.of([tiny], ["flip"], resize=64, crop=None, engine="faiss").fit(images[:2])
    for detector in (fitted(tiny, images[:2], crop=None), ensemble):
        assert detector.predict(images[2:]).notes == [
            ("in the index itself: as image 0",),
            ("stretched out of shape: 100x200 pixels, 1.6 times as far one way as the other",),
        ]


def test_an_image_of_the_index_itself_is_told_from_its_like(tiny, tmp_path):
    good = views((64, 64), (64, 70), (80, 64))
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, good, strict=True):
        Image.fromarray(image).save(path)
    spade, like = fitted(tiny, paths), good[1].copy()
    like[30, 30] ^= 1
    notes = [one.notes for one in spade.query([good[1], like, paths[2], views((64, 90))[0]])]
    assert notes == [
        (f"in the index itself: as {paths[1]}",),
        (),
        (f"in the index itself: as {paths[2]}",),
        (),
    ]


def test_a_batch_names_images_of_the_index_itself():
    notes = BatchNotes()
    notes.add("a.png", ("in the index itself: as good/a.png",))
    notes.add("b.png", ("in the index itself: as good/c: d.png",))
    assert notes.lines() == [
        "in the index itself: 2 images, a.png (as good/a.png), b.png (as good/c: d.png); "
        "a score against itself says nothing of an image"
    ]


def test_a_batch_says_the_same_of_many_images_in_one_line():
    notes = BatchNotes()
    assert notes.lines() == []
    for i in range(5):
        notes.add(f"{i}.png", (f"seen only in part: {i + 1} % of 9x9 pixels",))
    notes.add("x.png", ())
    notes.add("y.png", ("stretched out of shape: 9x9 pixels, 2 times as far one way as the other",))
    assert notes.lines() == [
        "seen only in part: 5 images, 0.png (1 % of 9x9 pixels), 1.png (2 % of 9x9 pixels), 2.png "
        "(3 % of 9x9 pixels) and 2 more; an index built with `crop=None` sees all of them",
        "stretched out of shape: 1 image, y.png (9x9 pixels, 2 times as far one way as the other); "
        "an index of their own would suit them better",
    ]
