"""Draw docs/demo.png and docs/report.jpg out of what `spade-faiss demo` writes, and region.jpg.

The first is a wall with a crack, explained; the second is the top of the gravel's report; the third
is what docs/region.md has proposed. Run it after overlays, explanations or reports have
changed their looks. It takes a Chromium on the path.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import ViewportSize, sync_playwright

from spade_faiss.evaluation.demo import run_demo
from spade_faiss.pictures.colours import rgb
from spade_faiss.report.proposal import propose

DOCS = Path(__file__).resolve().parent
GAP = 16
VIEW: ViewportSize = {"width": 1280, "height": 976}
SIZE = 1000, 763


def main() -> None:
    """Run the demo and draw the pictures."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        out = Path("spade-demo")
        run_demo(out)
        crack = explained(out / "brick", "crack/000.png")
        page = photographed(out / "gravel" / "report.html")
        plate = proposed()
    # Two bits less than there are, which nobody sees, leave half the bytes.
    crack.point(lambda value: min(255, (value + 2) // 4 * 4)).save(DOCS / "demo.png", optimize=True)
    page.save(DOCS / "report.jpg", quality=80, optimize=True)
    plate.save(DOCS / "region.jpg", quality=85, optimize=True)


def explained(results: Path, name: str) -> Image.Image:
    """Return an image's overlay above its explanation."""
    parts = [Image.open(results / kind / name) for kind in ("overlays", "explain")]
    picture = Image.new(
        "RGB",
        (max(part.width for part in parts), sum(part.height for part in parts) + GAP),
        rgb("paper"),
    )
    top = 0
    for part in parts:
        picture.paste(part, (0, top))
        top += part.height + GAP
    return picture


def proposed() -> Image.Image:
    """Return the picture of what is proposed for the images that docs/region.md makes."""
    code = re.search(r"```python\n(.*?)```", (DOCS / "region.md").read_text(), re.DOTALL)
    assert code is not None
    exec(code[1], {})
    images = sorted(Path("plates").iterdir())
    return Image.open(propose(images, Path("plates.index-region")).picture)


def photographed(report: Path) -> Image.Image:
    """Return the top of a report as Chromium shows it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport=VIEW)
        page.goto(report.resolve().as_uri())
        page.wait_for_function(
            "[...document.querySelectorAll('.card .photo')].length > 3 && "
            "[...document.images].every(image => image.complete)"
        )
        shot = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
        browser.close()
    return shot.convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
