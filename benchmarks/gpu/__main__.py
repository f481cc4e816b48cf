"""Run the benchmark; see the package."""

from __future__ import annotations

import os
import sys

import torch

from .options import parsed
from .parts import PARTS
from .results import in_all, show
from .running import results_of, run_part
from .setting import Result


def main() -> None:
    """Run the parts that were asked for, and show their results."""
    args = parsed()
    if args.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        print(
            "benchmarks.gpu needs a CUDA device and a torch built for it; none is here "
            "(--rehearse tries the script on the CPU)",
            file=sys.stderr,
        )
        sys.exit(2)
    if args.part:
        run_part(PARTS[args.part], args.part, args)
        return
    about: Result = {"benchmark": "gpu"}
    if args.rehearse:
        about["rehearsal"] = True
    results: list[Result] = []
    for result in results_of(args.only, PARTS, args, sys.argv[1:]):
        results.append(about | result)
        show(results[-1], as_json=args.json)
    for result in in_all(results):
        show(about | result, as_json=args.json)
    if any("error" in result for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
