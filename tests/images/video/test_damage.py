"""Videos that are cut, or damaged within: what is whole is read, and the rest is counted."""

import numpy as np
import pytest

from spade_faiss import SpadeError
from spade_faiss.images.video import decode, read_frames
from tests.images.video.test_formats import INTERLACED, LOW_DELAY, numbers, off, scene
from tests.images.video.videos import damage, encode, packets

GROUPED = {
    "h264.mp4": {"options": {"x264-params": "bframes=2:b-adapt=0"}},
    "open.mkv": {"options": {"x264-params": "open-gop=1"}},
    "h264.avi": {"options": {"x264-params": "bframes=0"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=8"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg2.mkv": {"codec": "mpeg2video", "max_b_frames": 2},
}
"""A key frame in eight; the frames between are built on others."""
ALONE = {
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "prores.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
}
"""Each frame stands alone."""


def make(folder, name, count=24):
    """Write a video, and return it with its frames as they are read while it is whole."""
    options = {"gop_size": 8} | (GROUPED | ALONE)[name]
    path = encode(folder / name, scene(count), **options)
    clean = list(read_frames(path))
    assert numbers(clean) == list(range(count))
    return path, clean


def read(path, fps=None):
    """Return the frames that are given, and what is said."""
    said = []
    frames = list(read_frames(path, fps, lambda *line: said.append(line)))
    assert all(where == str(path) for where, _ in said)
    return frames, [why for _, why in said]


def same(frames, clean):
    """Whether frames are, to the bit, those that their numbers stand for."""
    return all(
        np.array_equal(one.image, clean[number].image)
        and abs(one.seconds - clean[number].seconds) < 2e-3
        for one, number in zip(frames, numbers(frames), strict=True)
    )


@pytest.mark.parametrize(
    "name, how",
    [
        ("h264.mp4", "noise"),
        ("h264.mp4", "zeros"),
        ("h264.avi", "noise"),
        ("h264.avi", "zeros"),
        ("mpeg4.avi", "noise"),
        ("mpeg4.avi", "zeros"),
        ("open.mkv", "noise"),
        ("hevc.mp4", "zeros"),
    ],
)
def test_what_is_built_on_a_damaged_packet_is_left_out(tmp_path, capfd, name, how):
    path, clean = make(tmp_path, name)
    damage(path, 10, how)
    capfd.readouterr()
    frames, said = read(path)
    assert same(frames, clean)
    assert {*range(8), *range(16, 24)} <= {*numbers(frames)} < {*range(24)}
    assert said == [
        f"is damaged: {len(frames)} of 24 frames are whole, and those are used; copy it again"
    ]
    assert capfd.readouterr().err == ""


def test_what_a_decoder_conceals_is_left_out(tmp_path):
    path, clean = make(tmp_path, "mpeg2.mkv")
    damage(path, 12)
    frames, (said,) = read(path)
    assert same(frames, clean) and f"{len(frames)} of 24 frames" in said
    assert 16 <= len(frames) < 24


@pytest.mark.parametrize("how", ["noise", "zeros"])
@pytest.mark.parametrize("name", ALONE)
def test_where_frames_stand_alone_one_is_left_out(tmp_path, name, how):
    path, clean = make(tmp_path, name)
    damage(path, 10, how)
    frames, (said,) = read(path)
    assert numbers(frames) == [*range(10), *range(11, 24)] and same(frames, clean)
    assert "is damaged: 23 of 24 frames" in said
    assert numbers(read(path, 2.4)[0]) == [0, 11, 20]


def test_a_jpeg_that_is_concealed_is_left_out(tmp_path):
    """Noise within the entropy-coded data, which the decoder goes on after."""
    path, clean = make(tmp_path, "mjpeg.avi")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    packet, told = packets(path)[10], 0
    for _ in range(10):
        at = packet.pos + packet.size * 2 // 3 + int(rng.integers(packet.size // 4))
        path.write_bytes(whole[:at] + rng.bytes(40) + whole[at + 40 :])
        frames, said = read(path)
        if said:  # noise may be valid, too
            assert numbers(frames) == [*range(10), *range(11, 24)] and same(frames, clean)
            told += 1
    assert told >= 6


def test_av1_says_what_its_decoder_leaves_out_in_silence(tmp_path):
    path = encode(tmp_path / "a.mp4", scene(24), "libsvtav1", gop_size=8, options={"preset": "12"})
    clean = list(read_frames(path))
    damage(path, 10, "zeros")
    frames, (said,) = read(path)
    assert same(frames, clean) and "is damaged" in said
    assert numbers(frames)[:8] == list(range(8)) and numbers(frames)[-8:] == list(range(16, 24))


@pytest.mark.parametrize("which", [-1, -2, -3])
@pytest.mark.parametrize("name", ["h264.mp4", "prores.mov", "hevc.mp4"])
def test_damage_at_the_end_hides_nothing(tmp_path, name, which):
    """Several threads hold the last frames when the file ends."""
    path, clean = make(tmp_path, name)
    damage(path, which, "zeros" if name != "prores.mov" else "noise")
    frames, (said,) = read(path)
    assert same(frames, clean) and f"is damaged: {len(frames)} of 24 frames" in said
    assert len(frames) >= 20


def test_deinterlacing_goes_on_after_damage(tmp_path):
    path = encode(tmp_path / "a.mp4", scene(24), gop_size=8, **INTERLACED)
    clean = list(read_frames(path))
    damage(path, 10, "zeros")
    frames, (said,) = read(path)
    assert f"{len(frames)} of 24 frames" in said
    assert {*range(8), *range(16, 24)} <= {*numbers(frames)} < {*range(24)}
    assert off(frames, [clean[number].image for number in numbers(frames)]) < 3


def test_a_whole_video_is_read_once(tmp_path, monkeypatch):
    opened, read = decode.opened, []  # type: ignore[attr-defined]
    monkeypatch.setattr(decode, "opened", lambda path: read.append(path) or opened(path))
    made = [make(tmp_path, name)[0] for name in GROUPED | ALONE]
    assert read == [str(path) for path in made]


def test_nothing_whole_is_no_video(tmp_path):
    path, _ = make(tmp_path, "mjpeg.avi", 3)
    for which in range(3):
        damage(path, which, "zeros")
    with pytest.raises(SpadeError, match="no frame of it can be decoded"):
        read(path)


CUT = {
    "h264.mp4": {"container": {"movflags": "faststart"}},
    "h264.mkv": {},
    "h264.flv": {},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": LOW_DELAY},
}


@pytest.mark.parametrize("name", CUT)
def test_a_video_that_is_cut_is_told_by_its_length(tmp_path, capfd, name):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(24)]  # all large
    path = encode(tmp_path / name, images, **CUT[name])
    clean = list(read_frames(path))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    capfd.readouterr()
    frames, said = read(path)
    assert same(frames, clean) and 8 < len(frames) < 20
    assert said == [
        f"is cut short: {len(frames)} of 24 frames are whole, and those are used; copy it again"
    ]
    assert capfd.readouterr().err == ""


def test_a_frame_that_is_cut_is_not_used(tmp_path):
    """Windows Media says no length where its end is missing."""
    path = encode(tmp_path / "a.wmv", scene(24), "wmv2")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    there = len(packets(path))
    frames, said = read(path)
    assert numbers(frames) == list(range(len(frames))) and len(frames) in (there, there - 1)
    assert said == [] if len(frames) == there else f"{there - 1} of {there} frames" in said[0]


def test_a_recording_that_begins_between_key_frames(tmp_path):
    for name, options in (
        ("a.ts", {}),
        ("b.ts", {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=8"}}),
        ("c.ts", {"codec": "mpeg2video"}),
    ):
        path = encode(tmp_path / name, scene(32), gop_size=8, **options)
        clean = list(read_frames(path))
        data = path.read_bytes()
        path.write_bytes(data[len(data) * 2 // 5 // 188 * 188 :])
        frames, said = read(path)
        # The first is the first that can be decoded.
        assert 8 <= len(frames) <= 20 and said == []
        assert frames[0].seconds == 0 and numbers(frames) == list(range(len(frames)))
        assert off(frames[:-1], [one.image for one in clean[-len(frames) : -1]]) < 1


def test_lost_packets_of_a_transport_stream_are_noticed(tmp_path):
    path = encode(tmp_path / "a.ts", scene(32), gop_size=8, options={"crf": "4"})
    clean = list(read_frames(path))
    data = path.read_bytes()
    middle = len(data) // 2 // 188 * 188
    path.write_bytes(data[:middle] + data[middle + 3 * 188 :])
    frames, (said,) = read(path)
    assert f"is damaged: {len(frames)} of" in said
    assert same(frames[:8], clean)
    shown = [
        min(range(32), key=lambda i: np.abs(clean[i].image.astype(int) - one.image).mean())
        for one in frames
    ]
    assert off(frames, [clean[i].image for i in shown]) == 0
