"""The pages' colours can be told apart: WCAG 2.2, success criteria 1.4.3 and 1.4.11 (AA)."""

import re
from importlib.resources import files

import pytest

TEXT, SHAPE = 4.5, 3.0
"""Least contrast of text; of large text, of controls' edges, and of shapes that mean something."""
REPORT = files("spade_faiss.report") / "templates" / "page.css"
SERVICE = files("spade_faiss.service") / "page" / "page.css"


def colours(sheet, dark):
    """Return a style sheet's variables, by name, as RGB in 0…1."""
    schemes = re.findall(r":root \{(.*?)\}", sheet.read_text(), re.S)
    assert len(schemes) == 2  # light, and what dark changes
    found = re.findall(r"--([\w-]+): #([0-9a-f]+);", schemes[0] + (schemes[1] if dark else ""))
    return {name: [int(one, 16) / 255 for one in re.findall("..", value if len(value) == 6 else
                                                            "".join(2 * c for c in value))]
            for name, value in found}


def contrast(one, other):
    """Return the ratio of two colours' relative luminances."""
    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_known_colours():
    assert contrast([0, 0, 0], [1, 1, 1]) == pytest.approx(21)
    assert contrast([0x77 / 255] * 3, [1, 1, 1]) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("sheet, grounds, text, shapes, chips", [
    (REPORT, ("paper", "card"), ("ink", "muted", "ng", "ok", "error", "accent"),
     ("edge", "good", "second"), [("on", "ng"), ("on", "ok"), ("on", "error"),
                                  ("ink", "error-soft"), ("ink", "soft")]),
    (SERVICE, ("paper", "card"), ("ink", "muted", "accent", "wrong"), ("edge", "good", "bad"),
     [("on-accent", "accent")]),
], ids=["report", "service"])
def test_text_and_controls_stand_out(sheet, grounds, text, shapes, chips, dark):
    known = colours(sheet, dark)
    pairs = [(name, ground, TEXT) for name in text for ground in grounds]
    pairs += [(name, ground, SHAPE) for name in shapes for ground in grounds]
    pairs += [(*chip, TEXT) for chip in chips]
    ratios = {(a, b): (contrast(known[a], known[b]), least) for a, b, least in pairs}
    assert all(ratio >= least for ratio, least in ratios.values()), ratios


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_white_verdicts_are_large_text_that_stands_out(dark):
    known = colours(SERVICE, dark)
    for name in ("good", "bad", "unknown"):
        assert contrast([1, 1, 1], known[name]) >= SHAPE, name
