"""Read ShanghaiTech Campus as downloaded (Luo et al., ICCV 2017; Liu et al., CVPR 2018).

- `training/videos/01_001.avi`: scene 01, good
- `testing/frames/01_0014/000.jpg` …: a clip of scene 01
- `testing/test_frame_mask/01_0014.npy`: [frames], not zero where a frame is anomalous
- `testing/test_pixel_mask/01_0014.npy`: [frames, H, W], not zero where a pixel is (optional)
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import SpadeError
from ..images import SUFFIXES, OnError, OnNote, may_be_image, passed_over, report_note
from ..images.video import is_video
from .problems import BrokenError, Problems


@dataclass(frozen=True)
class Clip:
    """A test clip of a scene.

    Attributes
    ----------
    name : str
    frames : tuple of Path
        One image a frame, in order.
    labels : tuple of bool
        Whether each frame is anomalous.
    frame_mask, pixel_mask : Path
        The files of the ground truth; `pixel_mask` is None if there is none.
    """

    name: str
    frames: tuple[Path, ...]
    labels: tuple[bool, ...]
    frame_mask: Path
    pixel_mask: Path | None

    def pixels(self) -> npt.NDArray[np.generic] | None:
        """Return the pixel masks [frames, H, W], left in the file until they are looked at."""
        return None if self.pixel_mask is None else _read(self.pixel_mask, 3, len(self.frames))


@dataclass(frozen=True)
class Scene:
    """One camera: videos without anomalies to learn from, and clips to be judged.

    Attributes
    ----------
    name : str
        The digits that its videos' names begin with.
    videos : tuple of Path
    clips : tuple of Clip
        Good and anomalous frames, at least one of each.
    """

    name: str
    videos: tuple[Path, ...]
    clips: tuple[Clip, ...]

    @property
    def frames(self) -> list[Path]:
        """The frames of all clips, in order."""
        return [frame for clip in self.clips for frame in clip.frames]

    @property
    def masked(self) -> bool:
        """Whether all clips have pixel masks; else there are no pixel metrics."""
        return all(clip.pixel_mask for clip in self.clips)

    @property
    def files(self) -> list[Path]:
        """All files: videos, frames and masks."""
        masks = [mask for clip in self.clips for mask in (clip.frame_mask, clip.pixel_mask) if mask]
        return [*self.videos, *self.frames, *masks]


def load_stc(
    root: str | os.PathLike[str],
    names: Collection[str] | None = None,
    on_error: OnError | None = None,
    on_note: OnNote | None = None,
) -> list[Scene]:
    """List the videos and frames of a data set, sorted by scene; none is decoded.

    A scene whose ground truth does not fit its frames is left out whole: the labels of a clip
    that is longer or shorter than its mask cannot be trusted, and without it the scene's figure
    would be another one's.

    Parameters
    ----------
    root : path
    names : collection of str, optional
        The scenes to load; by default, or if empty, all that have test clips.
    on_error : callable, optional
        Called with (name, why) for a scene that is left out, and for a mask without a clip.
        Without it the first of these raises SpadeError.
    on_note : callable, optional
        Called with a line on files among the training videos that are not read. Without it a
        Python warning is issued.

    Raises
    ------
    SpadeError
        If the layout is not there, or no scene is named that is.
    """
    root = Path(root)
    testing = root / "testing" / "frames"
    for folder in (root / "training" / "videos", testing):
        if not folder.is_dir():
            raise SpadeError(
                f"{folder}: no such folder; ShanghaiTech Campus has training/videos "
                "and testing/frames"
            )
    training = sorted((root / "training" / "videos").iterdir())
    videos = _by_scene(path for path in training if is_video(path))
    taken = {path for paths in videos.values() for path in paths}
    if passed := [path for path in training if path not in taken and may_be_image(path)]:
        report_note(on_note, passed_over(passed))
    clips = _by_scene(path for path in testing.iterdir() if path.is_dir())
    if not clips:
        raise SpadeError(f"{testing} holds no clips (folders named <scene>_<clip>)")
    wanted = list(dict.fromkeys(names or clips))
    if not set(wanted) & clips.keys():
        raise SpadeError(f"{root} has no scene {wanted[0]}; there are: {', '.join(clips)}")
    problems = Problems(on_error)
    for kind in ("test_frame_mask", "test_pixel_mask"):
        for path in sorted((root / "testing" / kind).glob("*.npy")):
            if not names and not (testing / path.stem).is_dir():
                problems(path, f"is a mask without a clip in {testing}", "passed over")
    scenes = [
        _scene(name, videos.get(name, []), clips.get(name, []), problems) for name in sorted(wanted)
    ]
    return [scene for scene in scenes if scene]


def _by_scene(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Return paths by the part of their names before the underscore, sorted."""
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in paths if not path.name.startswith(".")):
        scene, underscore, _ = path.stem.partition("_")
        if underscore:
            found.setdefault(scene, []).append(path)
    return dict(sorted(found.items()))


def _scene(name: str, videos: list[Path], folders: list[Path], problems: Problems) -> Scene | None:
    """Return a scene, or None if it cannot be trusted; what is broken is reported, all of it."""
    done = f"scene {name} is left out"
    clips: list[Clip] = []
    for folder in folders:
        try:
            clips.append(_clip(folder))
        except BrokenError as error:
            problems(error.where, error.why, done)
        except OSError as error:
            problems(folder, f"cannot be read ({error.strerror})", done)
    kinds = {label for clip in clips for label in clip.labels}
    if not videos or not folders:
        where = "testing/frames" if videos else "training/videos"
        problems(f"scene {name}", f"there is nothing of it in {where}", done)
    elif len(clips) == len(folders) and len(kinds) < 2:
        what = "anomalous" if kinds == {True} else "good"
        problems(f"scene {name}", f"all its frames are {what}, and no ROCAUC is defined", done)
    elif len(clips) == len(folders):
        return Scene(name, tuple(videos), tuple(clips))
    return None


def _clip(folder: Path) -> Clip:
    # Shorter names first: 999.jpg is followed by 1000.jpg.
    frames = sorted(
        (
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        ),
        key=lambda path: (len(path.stem), path),
    )
    testing = folder.parent.parent
    mask = testing / "test_frame_mask" / f"{folder.name}.npy"
    labels = _read(mask, 1, len(frames)) != 0
    pixels: Path | None = testing / "test_pixel_mask" / f"{folder.name}.npy"
    if pixels and pixels.is_file():
        _check_size(pixels, _read(pixels, 3, len(frames)).shape[1:], frames[0])
    else:
        pixels = None
    return Clip(folder.name, tuple(frames), tuple(labels.tolist()), mask, pixels)


def _check_size(mask: Path, size: tuple[int, ...], frame: Path) -> None:
    """Compare a mask's height and width with what the header of a frame says."""
    try:
        with Image.open(frame) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return  # the frame is reported when it is decoded
    if size != (height, width):
        raise BrokenError(
            mask, f"the mask is {size[1]}x{size[0]} pixels and its frames {width}x{height}"
        )


def _read(path: Path, axes: int, frames: int) -> npt.NDArray[np.generic]:
    """Map a clip's mask, checked against how many frames the clip has."""
    try:
        mask = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BrokenError(path, "there is no such mask") from None
    except (OSError, ValueError, EOFError) as error:
        why = f"the mask cannot be read ({str(error).splitlines()[0]})"
        raise BrokenError(path, why) from None
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "buif" or mask.ndim != axes:
        raise BrokenError(path, f"the mask must be an array of numbers with {axes} axes")
    if len(mask) != frames or not frames:
        raise BrokenError(path, f"the mask is of {len(mask)} frames and the clip has {frames}")
    return mask
