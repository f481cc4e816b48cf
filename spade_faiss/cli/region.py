"""What is looked at: read from files, for one index or for each line's, or proposed and asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import SpadeError

if TYPE_CHECKING:
    from ..images import Source
    from ..images.roi import Roi
    from ..report.proposal import Proposal
    from .console import Console

AUTO = Path("auto")


def region_of(region: Path | None, ignore: Path | None) -> Roi | None:
    """Return what is looked at, by a picture of it, or of what is not."""
    if region is not None and ignore is not None:
        raise SpadeError("`region` and `ignore` say the same the other way round: give one of them")
    given = region or ignore
    if given is None:
        return None
    if given == AUTO and not given.exists():
        raise SpadeError(
            "`region=auto` is for build, which proposes a region to be looked at first: give a "
            "picture of what is to be looked at"
        )
    from ..images.region import read_region
    from ..images.roi import Roi, roi_of

    return roi_of(Roi(read_region(given, ignore=region is None)))


def regions_of_lines(
    region: Path | None, ignore: Path | None, names: Sequence[str]
) -> dict[str, Roi | None]:
    """Return what is looked at of each production line, by one picture or a folder of them.

    Raises
    ------
    SpadeError
        If a line has no picture in the folder, or one cannot be used.
    """
    folder = region or ignore
    if folder is None or not folder.is_dir():
        return dict.fromkeys(names, region_of(region, ignore))
    files = {name: folder / f"{name}.png" for name in names}
    if missing := [str(path) for path in files.values() if not path.exists()]:
        raise SpadeError(
            f"{', '.join(missing)}: no such file; the folder holds a region for each line, and one "
            "that is all white looks at everything"
        )
    if ignore is None:
        return {name: region_of(path, None) for name, path in files.items()}
    return {name: region_of(None, path) for name, path in files.items()}


def proposed_place(index: Path, line: str | None = None) -> Path:
    """Return where a proposed region goes: beside the index, or in a folder for all lines."""
    beside = index if index.name not in ("", "..") else index.resolve()
    beside = beside.with_name(f"{beside.name}-region")
    return beside if line is None else beside / line


def propose_regions(
    console: Console,
    images_of: Callable[[str | None], Iterable[Source]],
    index: Path,
    lines: Sequence[str] | None,
) -> tuple[dict[str | None, Proposal], bool]:
    """Propose a region for one index, or for each line's, and say what; ask whether to use it.

    Returns
    -------
    proposals : dict
        By line; of one index, by None.
    agreed : bool
        Whether a person at a terminal says that it is to be used.

    Raises
    ------
    SpadeError
        If there is nothing to propose.
    """
    from ..report.proposal import propose

    proposals: dict[str | None, Proposal] = {}
    for name in [None] if lines is None else lines:
        try:
            one = propose(images_of(name), proposed_place(index, name))
        except SpadeError as error:
            raise SpadeError(f"{name}: {error}" if name else str(error)) from None
        proposals[name] = one
        console.say(
            f"{f'{name}: ' if name else ''}the proposed region {one.roi.said}, by {one.images} "
            f"good images: see {one.picture}; {one.mask} is its mask"
        )
    if sys.stdin.isatty() and sys.stderr.isatty():
        return proposals, typer.confirm("Build with it?", err=True)
    return proposals, False


def proposal_record(proposals: dict[str | None, Proposal]) -> dict[str, Any]:
    """Return what `--json` says of proposals."""

    def one_record(one: Proposal) -> dict[str, Any]:
        return {
            "share": one.roi.share,
            "images": one.images,
            "mask": str(one.mask),
            "picture": str(one.picture),
        }

    if None in proposals:
        return {"proposed": one_record(proposals[None])}
    return {"proposed": {name: one_record(one) for name, one in proposals.items()}}


def nothing_is_built(region: Path) -> str:
    """Return what is said where a region is proposed and nothing is built."""
    return (
        f"nothing is built yet: look at it, change the mask if need be, and give --region {region}"
    )
