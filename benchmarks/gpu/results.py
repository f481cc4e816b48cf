"""Results put together, and shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from .others import OURS, compared
from .setting import Result

TARGET = 0.72e-3
"""Seconds an image for all levels."""
STAGES = ("decode_s", "network_s", "stage_one_s", "stage_two_s", "maps_s", "to_host_s")
TOLD = (
    "by",
    "not_the_package",
    "alone_ms",
    "alone_p95_ms",
    "learn_s",
    "learn_with_thresholds_s",
    "build_s",
    "left_out",
    "peak_gib",
    "held_gib",
)
"""What else is told of a rate."""
HIDDEN = (
    "benchmark",
    "part",
    "way",
    "k",
    "patches",
    "channels",
    "train_images",
    "gflop",
    "weights",
    "network",
    "rehearsal",
)


def in_all(results: Sequence[Result]) -> Iterator[Result]:
    """Add up the levels, for each way that all three have, and compare with the others."""
    yield from stage_two(results)
    entrants = {
        result["way"]: result
        for result in results
        if result["part"] == "others" and "learn_s" in result
    }
    if OURS in entrants:
        for name, result in entrants.items():
            if name != OURS:
                yield compared(entrants[OURS], result)


def stage_two(results: Sequence[Result]) -> Iterator[Result]:
    """Add up the levels, for each way that all three have."""
    device = next((r for r in results if r.get("float16_tflops")), None)
    levels: dict[str, dict[str, float]] = {}
    work: dict[str, float] = {}
    for result in results:
        if "gflop" in result:
            work[result["part"]] = result["gflop"]
            if "s_an_image" in result:
                levels.setdefault(result["way"], {})[result["part"]] = result["s_an_image"]
    for way, seconds in levels.items():
        if len(seconds) == 3:
            total = sum(seconds.values())
            line: Result = {"part": "stage two", "way": way, "s_an_image": total}
            if way.startswith("fused"):
                line["target_s"] = TARGET
                if device:
                    rate = device["float16_tflops"] * 1e3
                    line["floor_s"] = sum(work.values()) / rate
                    line["times_the_floor"] = round(total / line["floor_s"], 2)
            yield line


def show(result: Result, *, as_json: bool) -> None:
    """Print one result: JSON, or a line of a table."""
    if as_json:
        print(json.dumps(result), flush=True)
        return
    title = f"{result['part']}: {result.get('way', '')}".removesuffix(": ")
    if "error" in result:
        print(f"{title:48} failed: {result['error']}", flush=True)
    elif "s_an_image" in result:
        print(_rate_line(title, result), flush=True)
    else:
        print(title, flush=True)
        for key, value in result.items():
            if isinstance(value, dict):
                for inner, amount in value.items():
                    print(f"    {inner:68} {amount}", flush=True)
            elif key not in HIDDEN:
                print(f"    {key:34} {value}", flush=True)


def _rate_line(title: str, result: Result) -> str:
    """Return a line of what an image takes, and one of each stage of it."""
    text = f"{title:48} {1e3 * result['s_an_image']:10.3f} ms an image"
    for key in ("tflops", "times_the_floor", "images_a_second"):
        if key in result:
            text += f"  {key.replace('_', ' ')} {result[key]:.1f}"
    stages = {name[:-2]: result[name] for name in STAGES if name in result}
    stages |= result.get("stages_s", {})
    for name, seconds in stages.items():
        text += f"\n    {name:44} {1e3 * seconds:10.3f} ms"
    for name, seconds in result.get("stages_total_s", {}).items():
        text += f"\n    {name:44} {seconds:10.3f} s"
    for name in TOLD:
        if result.get(name) is not None:
            text += f"\n    {name:44} {result[name]}"
    return text
