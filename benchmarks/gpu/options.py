"""The options, and the setting that all parts share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .parts import CHOICES, GROUPS, PARTS


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options; of a rehearsal, with small numbers; `only` names single parts."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="What a GPU gives, from file to verdict."
    )
    parser.add_argument("--weights", help="a checkpoint of Wide-ResNet-50-2")
    parser.add_argument("--train", type=int, default=200, help="training images")
    parser.add_argument("--k", type=int, default=50, help="nearest training images")
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, 8, 32],
        help="batch sizes of levels and pipeline; files has its own",
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=CHOICES, nargs="+", default=CHOICES)
    parser.add_argument("--minutes", type=float, default=12, help="in which the whole ends")
    parser.add_argument(
        "--timeout", type=float, help="seconds for each part, instead of each part's own limit"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="run on the CPU, interpreted and small, to try the script; its times mean nothing",
    )
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.rehearse:
        args.train, args.k, args.batch, args.repeats = 3, 2, [1, 2], 1
    if args.k > args.train:
        parser.error(f"--k {args.k} is more than the {args.train} training images")
    args.only = [part for name in args.only for part in GROUPS.get(name, (name,))]
    return args
