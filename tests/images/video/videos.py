"""Small videos of a street: a walker is good, one who runs is not."""

import os
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

SIZE = (96, 128)  # height and width


def street(name: str = "brick", seed: int = 0) -> np.ndarray:
    """Return a view that does not move, uint8 [H, W, 3]."""
    from skimage import data

    photo = getattr(data, name)()
    top, left = np.random.default_rng(seed).integers(0, 256, 2)
    view = cv2.resize(
        photo[top : top + 192, left : left + 256], SIZE[::-1], interpolation=cv2.INTER_AREA
    )
    return np.repeat(view[..., None], 3, 2)


def frame(
    view: np.ndarray, x: float, runs: bool = False, noise: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the street with someone at `x`, and the mask of one who runs."""
    image, mask = view.copy(), np.zeros(SIZE, np.uint8)
    # Who runs leans forward, and is smeared by speed.
    axes, angle = ((26, 9), 25) if runs else ((5, 16), 0)
    cv2.ellipse(image, (round(x), 60), axes, angle, 0, 360, (60, 30, 200), -1, cv2.LINE_AA)
    cv2.ellipse(mask, (round(x), 60), axes, angle, 0, 360, 1, -1)
    rng = np.random.default_rng(noise)
    grainy = image + rng.normal(0, 2, image.shape)
    return np.clip(grainy, 0, 255).astype(np.uint8), mask * np.uint8(runs)


def walk(view: np.ndarray, count: int, start: float = 10) -> list[np.ndarray]:
    """Return frames of someone who walks."""
    return [frame(view, start + 1.5 * i % 100, noise=i)[0] for i in range(count)]


def write_video(path: Path, frames: list[np.ndarray], fps: float = 24, codec: str = "MJPG") -> Path:
    """Write frames [H, W, 3], RGB, as a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = frames[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size)  # type: ignore[attr-defined]
    assert writer.isOpened(), codec
    for image in frames:
        writer.write(image[..., ::-1])
    writer.release()
    return path


@contextmanager
def scheduled_as_before():
    """Undo what SVT-AV1 does to a process of root's: it puts it before all others, for good.

    All threads and processes that it starts later would be, too, and starve the rest.
    """
    known = hasattr(os, "sched_getscheduler")
    before = (os.sched_getscheduler(0), os.sched_getparam(0)) if known else None
    try:
        yield
    finally:
        if before:
            os.sched_setscheduler(0, *before)


def encode(
    path: Path,
    frames: list[np.ndarray],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: list[int] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    prepare=None,
    picture=None,
    **attributes: object,
) -> Path:
    """Write frames [H, W, 3], RGB, 24 a second, as what OpenCV cannot write.

    Parameters
    ----------
    times : list of int, optional
        Milliseconds at which the frames are shown.
    options, container : dict, optional
        FFmpeg's options for the encoder and for the file.
    prepare : callable, optional
        Called with the stream before anything is written.
    picture : callable, optional
        Makes a `VideoFrame` of each of `frames`; by default these are RGB.
    attributes : object
        Set on the codec's context (`gop_size`, `flags` …).
    """
    base = Fraction(1, 24 if times is None else 1000)
    quiet = {"libx265": {"x265-params": "log-level=none"}}.get(codec, {})
    with scheduled_as_before(), av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=24, options=quiet | (options or {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = base
        for name, value in attributes.items():
            setattr(stream.codec_context, name, value)
        if prepare:
            prepare(stream)
        for i, image in enumerate(frames):
            frame = picture(image) if picture else av.VideoFrame.from_ndarray(image)
            frame.pts, frame.time_base = (i if times is None else times[i]), base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def packets(path: Path) -> list[av.Packet]:
    """Return the packets of a file's first video, in the order in which they are stored."""
    with av.open(str(path)) as file:
        return [one for one in file.demux(file.streams.video[0]) if one.size]


def damage(path: Path, which: int, how: str = "noise") -> Path:
    """Fill most of a packet with noise, or all of it with zeros."""
    packet = packets(path)[which]
    data = bytearray(path.read_bytes())
    if how == "zeros":
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    else:
        start, end = packet.pos + packet.size // 4, packet.pos + packet.size * 3 // 4
        data[start:end] = np.random.default_rng(1).bytes(end - start)
    path.write_bytes(data)
    return path


def make_stc(root: Path, pixel_masks: bool = True) -> Path:
    """Write two scenes in ShanghaiTech Campus' layout.

    Each has two training videos of two seconds, and two clips: 16 frames, the last 6 of them
    anomalous, and 12 frames, the first 5 of them.
    """
    for scene, texture in (("01", "brick"), ("02", "gravel")):
        view = street(texture)
        for clip in ("001", "002"):
            write_video(
                root / "training/videos" / f"{scene}_{clip}.avi",
                walk(view, 48, start=10 + 7 * int(clip)),
            )
        for clip, runs in (("0014", [False] * 10 + [True] * 6), ("0015", [True] * 5 + [False] * 7)):
            name = f"{scene}_{clip}"
            folder = root / "testing/frames" / name
            folder.mkdir(parents=True)
            pixels = []
            for i, anomalous in enumerate(runs):
                image, mask = frame(view, 30 + (5 if anomalous else 1.5) * i, anomalous, 99 + i)
                cv2.imwrite(str(folder / f"{i:03}.jpg"), image[..., ::-1])
                pixels.append(mask)
            masks = root / "testing"
            (masks / "test_frame_mask").mkdir(exist_ok=True)
            np.save(masks / "test_frame_mask" / f"{name}.npy", np.array(runs, np.int8))
            if pixel_masks:
                (masks / "test_pixel_mask").mkdir(exist_ok=True)
                np.save(masks / "test_pixel_mask" / f"{name}.npy", np.stack(pixels))
    return root
