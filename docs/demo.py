"""Draw docs/demo.png out of what `spade-faiss demo` writes: a wall with a crack, explained.

Run it after overlays or explanations have changed their looks.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from PIL import Image

from spade_faiss.demo import run_demo

PICTURE = Path(__file__).resolve().with_name("demo.png")
PAPER = 250, 250, 249
GAP = 16


def main() -> None:
    """Run the demo and put the overlay above the explanation."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        out = Path("spade-demo")
        run_demo(out)
        parts = [Image.open(out / "brick" / kind / "crack" / "000.png")
                 for kind in ("overlays", "explain")]
        picture = Image.new("RGB", (max(part.width for part in parts),
                                    sum(part.height for part in parts) + GAP), PAPER)
        top = 0
        for part in parts:
            picture.paste(part, (0, top))
            top += part.height + GAP
    # Two bits less than there are, which nobody sees, leave half the bytes.
    picture.point(lambda value: min(255, (value + 2) // 4 * 4)).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
