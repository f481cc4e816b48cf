"""Colours can be told apart by everyone: WCAG 2.2 (AA), and as the colour-blind see them."""

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000, rgb2lab

from spade_faiss.pictures import colours
from spade_faiss.pictures.colours import DARK, LIGHT, blend, heat, resized, whole_map
from spade_faiss.pictures.drawing import overlaid

TEXT, SHAPE = 4.5, 3.0
"""Least contrast of text; of large text, of controls' edges, and of shapes that mean something."""
SCHEMES = pytest.mark.parametrize("known", [LIGHT, DARK], ids=["light", "dark"])
VERDICTS = "ok", "review", "ng", "error"
# What dichromats see: Machado, Oliveira and Fernandes, "A Physiologically-based Model for
# Simulation of Color Vision Deficiency" (2009), for severity 1; of linear RGB.
SEEN = {
    "trichromat": np.eye(3),
    "protanope": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranope": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanope": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
PEOPLE = pytest.mark.parametrize("person", SEEN)
GROUNDS = [(0, 0, 0), (60, 60, 60), (128, 128, 128), (200, 200, 200), (255, 255, 255)]


def linear(colour):
    """Return linear RGB of 8-bit sRGB."""
    share = np.asarray(colour, float) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def seen(colour, person):
    """Return 8-bit sRGB as a person sees it, in CIELAB."""
    light = np.clip(linear(colour) @ SEEN[person].T, 0, 1)
    return rgb2lab(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def contrast(one, other):
    """Return the ratio of the relative luminances of two colours, in 8-bit sRGB."""
    light, dark = sorted((linear(c) @ (0.2126, 0.7152, 0.0722) for c in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_known_colours():
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([0x77] * 3, [255] * 3) == pytest.approx(4.48, abs=0.01)


def test_the_simulation_confuses_what_the_colour_blind_confuse():
    def differ(one, other, person):
        return deltaE_ciede2000(seen(one, person), seen(other, person))

    red, green = (185, 64, 75), (14, 139, 67)
    assert differ(red, green, "trichromat") > 40 and differ(red, green, "deuteranope") < 4
    orange, pink = (201, 75, 10), (220, 29, 122)
    assert differ(orange, pink, "trichromat") > 30 and differ(orange, pink, "tritanope") < 6
    for person in SEEN:
        assert seen((128, 128, 128), person) == pytest.approx(
            seen((128, 128, 128), "trichromat"), abs=0.1
        )


# Pages -----------------------------------------------------------------------------------


@SCHEMES
def test_text_and_controls_stand_out(known):
    pairs = [
        (name, ground, TEXT)
        for ground in ("paper", "card")
        for name in ("ink", "muted", "ng", "ok", "error", "accent")
    ]
    pairs += [
        (name, ground, SHAPE)
        for ground in ("paper", "card")
        for name in ("edge", "grey", "second", *VERDICTS)
    ]
    pairs += [("on", name, TEXT) for name in ("accent", "ng", "ok", "error")]
    pairs += [
        ("on-review", "review", TEXT),
        ("on", "grey", SHAPE),
        ("ink", "review-soft", TEXT),
        ("ink", "soft", TEXT),
    ]
    ratios = {
        (a, b): (contrast(colours.rgb(known[a]), colours.rgb(known[b])), least)
        for a, b, least in pairs
    }
    assert all(ratio >= least for ratio, least in ratios.values()), ratios


@SCHEMES
@PEOPLE
def test_verdicts_are_told_apart(known, person):
    for one, other in combinations(VERDICTS, 2):
        pair = [seen(colours.rgb(known[name]), person) for name in (one, other)]
        assert deltaE_ciede2000(*pair) >= 15, (one, other)


@PEOPLE
def test_bars_side_by_side_are_told_apart(person):
    for one, other in combinations([*colours.SERIES, LIGHT["grey"]], 2):
        pair = [seen(colours.rgb(name), person) for name in (one, other)]
        assert deltaE_ciede2000(*pair) >= 10, (one, other)
    for name in colours.SERIES:
        assert contrast(colours.rgb(name), colours.rgb("paper")) >= SHAPE


def test_a_picture_s_verdict_has_the_page_s_colours():
    assert colours.verdict_colours("NG") == (colours.rgb(LIGHT["ng"]), (255, 255, 255))
    assert colours.verdict_colours("REVIEW") == (
        colours.rgb(LIGHT["review"]),
        colours.rgb(LIGHT["ink"]),
    )
    assert colours.verdict_colours("") == (colours.rgb(LIGHT["grey"]), (255, 255, 255))


@pytest.mark.parametrize(
    "sheet",
    [
        files("spade_faiss.report") / "templates" / "page.css",
        files("spade_faiss.service") / "page" / "page.css",
        files("spade_faiss.service") / "page" / "docs.css",
    ],
    ids=["report", "service", "docs"],
)
def test_pages_have_no_colours_but_these(sheet):
    text = sheet.read_text()
    given = {"w", "h", "ratio", "limit"}  # by the page, of its images
    defined = set(re.findall(r"--([\w-]+):", colours.style_sheet() + text)) | given
    assert set(re.findall(r"var\(--([\w-]+)", text)) <= defined
    # Else only black, greys that images lie on, and white that is nearly so.
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", text)) <= {
        "#000",
        "#fff",
        "#111",
        "#0c0c0e",
        "#232327",
    }


def test_both_schemes_have_all_colours():
    assert LIGHT.keys() == DARK.keys()
    light, dark = re.findall(r":root \{(.*?)\}", colours.style_sheet())
    for name in LIGHT:
        assert f"--{name}: {LIGHT[name]};" in light and f"--{name}: {DARK[name]};" in dark


# Maps ------------------------------------------------------------------------------------


def at(share, threshold=8.0):
    """Return what is painted where a map is this many times the threshold."""
    return tuple(heat(np.full((1, 1), share * threshold, np.float32), threshold)[0, 0].tolist())


def test_what_is_well_below_the_threshold_is_clear():
    assert [at(share)[3] for share in (0, 0.5, 0.75)] == [0, 0, 0]


def test_what_is_just_below_is_faint_and_what_is_over_is_strong():
    alphas = [at(share)[3] for share in (0.8, 0.9, 0.99, 1)]
    assert alphas == sorted(alphas) and alphas[0] > 0 and alphas[-1] == 102
    assert {at(share)[:3] for share in (0.8, 0.9, 1)} == {(255, 214, 0)}
    assert [at(share)[3] for share in (1.001, 1.2, 1.5, 40)] == [255] * 4


def test_a_map_goes_from_yellow_at_the_threshold_to_red_at_one_and_a_half():
    assert at(1 + 1e-6)[:3] == (255, 214, 0)
    assert at(1.25)[:3] == (255, 130, 0)
    assert at(1.5)[:3] == (214, 18, 26) == at(2)[:3] == at(1e30)[:3]


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1e-38])
def test_thresholds_that_no_ratio_can_be_had_of(threshold):
    values = np.array([[threshold, threshold + 1, 1e30]], np.float32)
    painted = heat(values, threshold)[0]
    assert painted[0, 3] in (0, 102) and painted[1:].tolist() == [[214, 18, 26, 255]] * 2


def test_without_a_threshold_nothing_has_an_alarm_s_colours():
    values = np.linspace(0, 5, 50, dtype=np.float32)[None]
    painted = heat(values, None)[0].astype(int)
    assert (painted[:, 2] >= painted[:, 0]).all()  # blue
    assert painted[values[0] <= 2.5, 3].max() == 0 and painted[-1, 3] == 255
    assert (np.diff(painted[:, 3]) >= 0).all()
    assert heat(values, None, top=20)[..., 3].max() == 0  # beside one that is larger
    assert heat(np.zeros((2, 2), np.float32), None)[..., 3].max() == 0


@PEOPLE
@pytest.mark.parametrize("ground", GROUNDS, ids=str)
def test_the_ramp_darkens_and_stands_out_from_any_ground(person, ground):
    shares = np.array([[1.0001, 1.125, 1.25, 1.375, 1.5]], np.float32)
    picture = np.broadcast_to(np.uint8(ground), (1, 5, 3))
    shown = seen(blend(picture, heat(shares, 1.0))[0], person)
    assert (np.diff(shown[:, 0]) < -3).all()  # lightness, of 100
    assert deltaE_ciede2000(shown, seen(ground, person)[None]).min() >= 12


@PEOPLE
def test_a_whole_map_shows_what_is_over_the_threshold(person):
    values = np.linspace(0, 1.6, 161, dtype=np.float32)[None]
    shown = seen(whole_map(values, 1.0)[0], person)
    below, above = shown[values[0] <= 1], shown[values[0] > 1]
    assert (np.diff(below[:, 0]) > -0.5).all() and (np.diff(above[:, 0]) < 0.5).all()
    assert above[0, 0] - below[-1, 0] > 15
    assert min(deltaE_ciede2000(one, below[:76]).min() for one in above) > 15


@PEOPLE
@pytest.mark.parametrize(
    "ground", [*GROUNDS, (150, 105, 90), (90, 120, 60), (255, 214, 0), (214, 18, 26)], ids=str
)
@pytest.mark.parametrize("peak", [1.01, 1.5])
def test_an_outline_shows_on_any_ground(person, ground, peak):
    values = np.zeros((60, 60), np.float32)
    values[20:40, 20:40] = peak
    picture = overlaid(np.full((60, 60, 3), ground, np.uint8), values, 1.0)
    row = seen(picture[30], person)[:, 0]
    assert np.ptp(row[15:25]) > 60  # a light line beside a dark one
    ground_light, inside = row[0], row[30]
    for beside in (ground_light, inside):
        assert np.abs(row[15:25] - beside).max() > 40
    assert (picture[0] == ground).all()


def test_the_page_s_key_is_what_is_painted():
    stops = re.findall(r"rgb\((\d+) (\d+) (\d+) / ([\d.]+)\) ([\d.]+)%", colours.style_sheet())
    assert len(stops) == 5
    for *colour, alpha, place in stops:
        share = 0.75 + 0.75 * float(place) / 100
        painted = [at(share + nudge) for nudge in (-1e-3, 1e-3)]
        assert any(
            np.allclose([*map(int, colour), 255 * float(alpha)], one, atol=3) for one in painted
        )


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
def test_a_map_in_another_size_keeps_its_peak(height, width, new_height, new_width, seed):
    rng = np.random.default_rng(seed)
    values = np.zeros((height, width), np.float32)
    values[rng.integers(height), rng.integers(width)] = 1
    shown = resized(values, (new_width, new_height))
    assert shown.shape == (new_height, new_width) and shown.max() <= 1
    if new_height <= height and new_width <= width:
        assert shown.max() == 1
