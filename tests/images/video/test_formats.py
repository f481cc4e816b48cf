"""What a video is coded, stored and shown as, and that it is read as it is meant."""

import os
import socket
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from spade_faiss import SpadeError
from spade_faiss.images.video import read_frames
from tests.images.video.videos import encode, packets, write_video

HEIGHT, WIDTH = 96, 128
INTERLACED = {"flags": 1 << 18 | 1 << 29}  # +ildct+ilme
LOW_DELAY = {"deadline": "realtime", "cpu-used": "8"}


def scene(count=16, offset=0.0, step=3.0):
    """A bright bar that moves over a smooth view."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    view = np.stack([60 + x, 60 + y, np.full_like(x, 110)], 2).astype(np.uint8)
    images = []
    for i in range(count):
        image = view.copy()
        left = round(20 + step * (i + offset))
        image[20:70, left : left + 16] = (220, 190, 60)
        images.append(image)
    return images


def numbers(frames):
    return [int(one.name[-6:]) for one in frames]


def off(frames, images):
    """The largest mean difference between a frame and what it should be, in grey levels."""
    return max(
        float(np.abs(one.image.astype(int) - image).mean())
        for one, image in zip(frames, images, strict=True)
    )


CODED = {
    "h264.mp4": {},
    "h264.mkv": {},
    "h264.ts": {},
    "h264.avi": {},
    "h264.flv": {},
    "open.mkv": {"options": {"x264-params": "open-gop=1"}, "gop_size": 6},
    "10 bits.mp4": {"codec": "libx265", "pixels": "yuv420p10le"},
    "hevc.mov": {"codec": "libx265"},
    "vp8.webm": {"codec": "libvpx", "options": LOW_DELAY},
    "vp9.webm": {"codec": "libvpx-vp9", "options": LOW_DELAY},
    "mpeg2.mpg": {"codec": "mpeg2video", "max_b_frames": 2, "bit_rate": 4_000_000},
    "mpeg4.avi": {"codec": "mpeg4", "max_b_frames": 2, "bit_rate": 4_000_000},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj444p", "options": {"qmax": "2"}},
    "prores.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "wmv.wmv": {"codec": "wmv2", "bit_rate": 4_000_000},
}


@pytest.mark.parametrize("name", CODED)
def test_every_codec_gives_each_frame_once_in_the_order_shown(tmp_path, name, recwarn):
    images = scene()
    frames = list(read_frames(encode(tmp_path / name, images, **CODED[name])))
    assert numbers(frames) == list(range(16))
    assert off(frames, images) < 4
    np.testing.assert_allclose([one.seconds for one in frames], np.arange(16) / 24, atol=2e-3)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_av1_is_decoded(tmp_path, capfd, name):
    images = scene()
    scheduled = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None
    path = encode(tmp_path / name, images, "libsvtav1", options={"preset": "12", "crf": "10"})
    assert scheduled is None or os.sched_getscheduler(0) == scheduled
    capfd.readouterr()
    frames = list(read_frames(path))
    assert numbers(frames) == list(range(16)) and off(frames, images) < 4
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("pixels", ["bgr0", "bgra"])
def test_a_lossless_video_is_read_to_the_bit(tmp_path, pixels):
    images = scene(4)
    frames = list(read_frames(encode(tmp_path / "a.mkv", images, "ffv1", pixels)))
    assert all(np.array_equal(one.image, image) for one, image in zip(frames, images, strict=True))


def combs(image):
    """How far rows differ from the mean of their neighbours, as they do where fields mix."""
    rows = image.astype(float)
    return np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean()


def woven(count):
    """Frames of two fields, the lower lines half a frame later, and the views at both times."""
    early, late = scene(count, step=8), scene(count, 0.5, step=8)
    frames = [image.copy() for image in early]
    for image, later in zip(frames, late, strict=True):
        image[1::2] = later[1::2]
    return frames, early


@pytest.mark.parametrize(
    "name, options",
    [
        ("a.mp4", {"options": {"crf": "8"}}),
        ("a.ts", {"options": {"crf": "8"}}),
        ("a.mpg", {"codec": "mpeg2video", "bit_rate": 8_000_000, "max_b_frames": 2}),
    ],
)
def test_interlaced_frames_are_deinterlaced_one_picture_each(tmp_path, name, options):
    fields, early = woven(10)
    path = encode(tmp_path / name, fields, **options, **INTERLACED)
    with av.open(str(path)) as file:
        assert all(one.interlaced_frame for one in file.decode(video=0))
    frames = list(read_frames(path))
    assert numbers(frames) == list(range(10))
    np.testing.assert_allclose([one.seconds for one in frames], np.arange(10) / 24, atol=2e-3)
    assert off(frames, early) < 5
    for one, image in zip(frames, fields, strict=True):
        assert combs(one.image) < 0.5 * combs(image)
    assert numbers(read_frames(path, 8)) == [0, 3, 6, 9]
    single = encode(tmp_path / f"one {name}", fields[:1], **options, **INTERLACED)
    assert numbers(read_frames(single)) == [0]


def test_deinterlacing_keeps_colours_and_turning(tmp_path):
    images = [np.ascontiguousarray(image) for image in scene(6, step=0)]
    plain = {
        "options": {"crf": "4"},
        "colorspace": 1,
        "color_range": 1,
        "prepare": lambda stream: stream.set_display_rotation(90),
    }
    whole = list(read_frames(encode(tmp_path / "p.mp4", images, **plain)))
    fields = list(read_frames(encode(tmp_path / "i.mp4", images, **plain, **INTERLACED)))
    assert fields[2].image.shape == (WIDTH, HEIGHT, 3)
    assert off(fields, [one.image for one in whole]) < 1


PRIMARIES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Kr and Kb of ITU-R BT.709, BT.601 (twice) and BT.2020, by their numbers in ITU-T H.273."""


def from_yuv(y, u, v, matrix, full, bits):
    """Convert to RGB, float, as ITU-T H.273 defines it."""
    red, blue = PRIMARIES[matrix]
    scale = 2 ** (bits - 8)
    if full:
        y, u, v = y / (256 * scale - 1), *((c - 128 * scale) / (256 * scale - 1) for c in (u, v))
    else:
        y, u, v = (y / scale - 16) / 219, (u / scale - 128) / 224, (v / scale - 128) / 224
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return 255 * np.clip(np.stack([r, g, b], -1), 0, 1)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("matrix, said", [(1, 1), (5, 5), (6, 6), (9, 9), (6, 2)])
@pytest.mark.parametrize("full", [False, True])
def test_colours_follow_the_matrix_and_the_range(tmp_path, pixels, matrix, said, full):
    bits = 10 if "10" in pixels else 8
    rng, scale = np.random.default_rng(0), 2 ** (bits - 8)
    # One colour in each square of 16 pixels.
    levels = [
        rng.integers(low * scale, high * scale, (HEIGHT // 16, WIDTH // 16))
        for low, high in ((60, 200), (100, 156), (100, 156))
    ]

    def picture(_):
        frame = av.VideoFrame(WIDTH, HEIGHT, pixels)
        for plane, level in zip(frame.planes, levels, strict=True):
            values = np.zeros((plane.height, plane.line_size), np.uint8)
            values = values.view(np.uint16 if bits > 8 else np.uint8)
            values[:, : plane.width] = level.repeat(plane.height // level.shape[0], 0).repeat(
                plane.width // level.shape[1], 1
            )
            plane.update(values.tobytes())
        frame.colorspace, frame.color_range = said, 2 if full else 1
        return frame

    path = encode(
        tmp_path / "a.mkv",
        scene(1),
        "ffv1",
        pixels,
        picture=picture,
        colorspace=said,
        color_range=2 if full else 1,
    )
    (one,) = read_frames(path)
    expected = from_yuv(*(level.astype(float) for level in levels), matrix, full, bits)  # type: ignore[call-arg]
    np.testing.assert_allclose(one.image[8::16, 8::16], expected, atol=1.2)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_turned_upright(tmp_path, name, degrees, mirrored):
    image = scene(1)[0]
    path = encode(
        tmp_path / name,
        [image],
        prepare=lambda stream: stream.set_display_rotation(degrees, hflip=mirrored),
    )
    (one,) = read_frames(path)
    # FFmpeg writes the matrix that turns what is stored against the clock, and then mirrors it.
    upright = np.rot90(image, degrees // 90)[:, :: -1 if mirrored else 1]
    assert one.image.shape == upright.shape and one.image.flags.c_contiguous
    assert off([one], [upright]) < 4


def test_pixels_that_are_not_square_stay_as_they_are(tmp_path):
    path = encode(tmp_path / "a.mp4", scene(1), sample_aspect_ratio=Fraction(16, 11))
    assert next(read_frames(path)).image.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_variable_rate_is_told_by_time_stamps_among_b_frames(tmp_path, name, recwarn):
    times = [0, 40, 80, 1080, 1120, 1160, 2000, 2500, 2600, 2700, 2800, 2900]
    path = encode(tmp_path / name, scene(12), times=times)
    frames = list(read_frames(path))
    np.testing.assert_allclose([one.seconds for one in frames], np.array(times) / 1000, atol=2e-3)
    assert numbers(read_frames(path, 1)) == [0, 3, 6] and not recwarn.list


def test_time_stamps_that_go_back_are_counted_on(tmp_path):
    parts = [encode(tmp_path / f"{i}.ts", scene(6)).read_bytes() for i in range(3)]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    frames = list(read_frames(tmp_path / "a.ts", on_warning=lambda *_: None))
    seconds = np.array([one.seconds for one in frames])
    # Where the parts meet, some frames cannot be told to be whole.
    assert len(frames) >= 14 and numbers(frames)[-1] == 17
    assert (np.diff(seconds) > 0.04).all() and seconds[-1] < 1


def test_what_an_edit_list_cuts_off_is_not_shown(tmp_path, recwarn):
    images = scene(24)
    source = encode(tmp_path / "a.mp4", images, gop_size=8, options={"crf": "10"})
    path = tmp_path / "cut.mp4"
    with (
        av.open(str(source)) as file,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as cut,
    ):
        stream = cut.add_stream_from_template(file.streams.video[0])
        for packet in packets(source):
            shift = round(10 / 24 / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = stream
            cut.mux(packet)
    frames = list(read_frames(path))
    assert numbers(frames) == list(range(14)) and off(frames, images[10:]) < 4
    np.testing.assert_allclose([one.seconds for one in frames], np.arange(14) / 24, atol=2e-3)
    assert not recwarn.list


def add_sound(file, seconds):
    stream = file.add_stream("aac", rate=8000)
    stream.layout = "mono"
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * seconds), np.float32), "fltp", "mono")
    silence.sample_rate = 8000
    return lambda: file.mux([*stream.encode(silence), *stream.encode()])


def add_video(file, images, codec="mpeg4", pixels="yuv420p"):
    stream = file.add_stream(codec, rate=24)
    stream.height, stream.width = images[0].shape[:2]
    stream.pix_fmt = pixels

    def write():
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image)
            frame.pts = i
            file.mux(stream.encode(frame))
        file.mux(stream.encode())

    return stream, write


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_sound_is_not_waited_for(tmp_path, name, recwarn):
    path = tmp_path / name
    with av.open(str(path), "w") as file:
        write, sound = add_video(file, scene(12))[1], add_sound(file, 3)
        write()
        sound()
    assert numbers(read_frames(path)) == list(range(12)) and not recwarn.list


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_sound_alone_is_named(tmp_path, name):
    path = tmp_path / name
    with av.open(str(path), "w") as file:
        add_sound(file, 1)()
    with pytest.raises(SpadeError, match=r"holds sound, but no video$"):
        next(read_frames(path))


def test_the_picture_on_a_cover_is_no_video(tmp_path, recwarn):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        cover, write_cover = add_video(
            file, [np.zeros((400, 400, 3), np.uint8)], "mjpeg", "yuvj420p"
        )
        cover.disposition = av.stream.Disposition.attached_pic
        write = add_video(file, scene(12))[1]
        write_cover()
        write()
    frames = list(read_frames(path))
    assert len(frames) == 12 and frames[0].image.shape == (HEIGHT, WIDTH, 3)
    assert not recwarn.list


def test_of_two_videos_it_is_said_which_is_used(tmp_path):
    path, said = tmp_path / "a.mkv", []
    with av.open(str(path), "w") as file:
        first = add_video(file, scene(12))[1]
        second = add_video(file, [image[:64, :64].copy() for image in scene(12)])[1]
        first()
        second()
    frames = list(read_frames(path, None, lambda *line: said.append(line)))
    ((where, why),) = said
    height, width = frames[0].image.shape[:2]
    assert len(frames) == 12 and where == str(path)
    assert "holds 2 videos" in why and f"({width}x{height}) is used alone" in why


def test_a_codec_that_nothing_decodes_is_named(tmp_path):
    data = write_video(tmp_path / "a.avi", scene(3)).read_bytes()
    (tmp_path / "b.avi").write_bytes(data.replace(b"MJPG", b"ZZZ9"))
    with pytest.raises(SpadeError, match="no decoder for its video"):
        next(read_frames(tmp_path / "b.avi"))


@pytest.mark.parametrize(
    "name",
    [
        "http:a.mp4",
        "concat:a|b.mp4",
        "%03d.mp4",
        "-i.mp4",
        "ü.mp4",
        os.fsdecode(b"\xff.mp4"),
    ],
)
def test_any_name_is_a_files(tmp_path, name):
    path = encode(tmp_path / "plain.mp4", scene(3)).rename(tmp_path / name)
    assert numbers(read_frames(path)) == [0, 1, 2]


def test_what_a_playlist_names_is_not_fetched(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        (tmp_path / "a.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(SpadeError, match="cannot be opened"):
            next(read_frames(tmp_path / "a.mp4"))
        with pytest.raises(BlockingIOError):
            server.accept()


def test_names_that_are_not_unicode_within_a_file_do_no_harm(tmp_path):
    path = encode(
        tmp_path / "a.mkv",
        scene(3),
        prepare=lambda stream: stream.container.metadata.update(title="PLACE HERE"),
    )
    data = path.read_bytes()
    path.write_bytes(data.replace(b"PLACE", b"\xff\xfeACE"))
    assert path.read_bytes() != data and numbers(read_frames(path)) == [0, 1, 2]


def test_opencvs_ffmpeg_and_pyavs_work_side_by_side(tmp_path):
    path = write_video(tmp_path / "a.mp4", scene(12), codec="mp4v")
    capture = cv2.VideoCapture(str(path))
    ours = read_frames(path)
    for one in ours:
        there, image = capture.read()
        assert there and np.abs(one.image.astype(int) - image[..., ::-1]).mean() < 3
    assert not capture.read()[0]
