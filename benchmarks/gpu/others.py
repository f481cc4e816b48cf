"""Beside what others would use: on the same card, images, resolution and weights."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .entrant import BATCH, Entrant, Ours
from .packages import Anomalib, Inspection
from .patchcore import LikeAnomalib, LikeInspection
from .running import one_line
from .setting import Result, Setting
from .timing import milliseconds

OURS = "spade-faiss"
ENTRANTS: dict[str, Sequence[Callable[[Setting], Entrant]]] = {
    OURS: (Ours,),
    "anomalib": (Anomalib, LikeAnomalib),
    "patchcore-inspection": (Inspection, LikeInspection),
}
"""By name: the package, and its rewrite for where it cannot be imported."""

IMAGES = 8 * BATCH
ALONE = 64
WARM = 5
"""Images alone, before any is timed: the same call must come a few times to be recorded."""
REPEATS = 3
LONG = 8.0
"""Seconds from which on it is not repeated."""
BETTER = {
    "images_a_second": 1,
    "alone_ms": -1,
    "learn_s": -1,
    "peak_gib": -1,
    "held_gib": -1,
}
"""Whether more is better, or less."""


def others_part(setting: Setting, name: str) -> Iterator[Result]:
    """Measure one of those that are compared."""
    args, clock = setting.args, setting.clock
    train, new = setting.views(args.train, 1), setting.views(setting.sized(IMAGES, 3), 2)

    def warm(entrant: Entrant) -> None:
        """Have done at first what is compiled, tuned and loaded; it does not count."""
        entrant.learn(train[: args.k])
        entrant.judge(new[:BATCH])
        for _ in range(WARM):
            entrant.judge(new[:1])

    entrant, why_not = able_one(ENTRANTS[name], setting, warm)
    clock.forget_peak()
    learn_s = clock.host_seconds(lambda: entrant.learn(train))
    found: list[Any] = []
    seconds = clock.host_seconds(lambda: found.append(entrant.judge(new)))
    scores, maps = found[0]
    assert len(scores) == len(maps) == len(new) and np.isfinite(scores).all()
    if seconds < LONG:
        seconds = clock.median_seconds(lambda: entrant.judge(new), setting.sized(REPEATS, 1))
    singles = [new[i : i + 1] for i in range(setting.sized(ALONE, 2))]
    alone = milliseconds(clock.each_seconds(entrant.judge, singles))
    result: Result = {
        "part": "others",
        "way": name,
        "by": entrant.by,
        **({"not_the_package": why_not} if why_not else {}),
        "train_images": args.train,
        "network": setting.backbone,
        "weights": setting.shape["weights"],
        "batch": BATCH,
        "images": len(new),
        "images_a_second": len(new) / seconds,
        "s_an_image": seconds / len(new),
        "alone_ms": alone["median_ms"],
        "alone_p95_ms": alone["p95_ms"],
        "learn_s": learn_s,
        "peak_gib": clock.peak_gib(),
        "held_gib": clock.held_gib(),
    }
    with_thresholds: list[bool] = []
    spent = clock.host_seconds(lambda: with_thresholds.append(entrant.learn_with_thresholds(train)))
    if with_thresholds[0]:
        result["learn_with_thresholds_s"] = spent
    yield result


def able_one(
    kinds: Sequence[Callable[[Setting], Entrant]],
    setting: Setting,
    warm: Callable[[Entrant], None],
) -> tuple[Entrant, str | None]:
    """Return the first kind that can be made and warmed up, and why not the one before it."""
    why_not: str | None = None
    for number, kind in enumerate(kinds, 1):
        try:
            entrant = kind(setting)
            warm(entrant)
            return entrant, why_not
        except Exception as error:  # a package that fits no other that is here may raise anything
            if number == len(kinds):
                raise
            if not isinstance(error, ImportError):
                traceback.print_exc()
            why_not = one_line(error)
    raise AssertionError


def compared(ours: Result, other: Result) -> Result:
    """Return how many times as good this project is as another, by each measure that both have."""
    ratios = {
        name: (ours[name] / other[name]) ** sign
        for name, sign in BETTER.items()
        if ours.get(name) and other.get(name)
    }
    return {
        "part": "others",
        "way": f"{OURS} against {other['way']}",
        "by": other["by"],
        "times_as_good": ratios,
        "ahead_in_all": all(ratio > 1 for ratio in ratios.values()),
    }
