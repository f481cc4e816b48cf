"""The fused search against a float64 brute force: on a GPU, or else in Triton's interpreter."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.command import environment
from tests.conftest import examples, texture, with_hole

pytest.importorskip("triton", reason="needs triton, which comes with torch for CUDA")

from spade_faiss.search.cuda import fused, fused_in_images, prepare
from spade_faiss.search.cuda.fused import LIMITS
from spade_faiss.search.cuda.screen import Limits, Workspace, parts_of, screen_queries

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def on_device(values):
    return torch.as_tensor(values).to(DEVICE)


def true_distances(queries, rows):
    q, r = queries.double().cpu(), rows.double().cpu()
    return (q[:, None] - r[None]).square().sum(2)


def rows_of(ids, per_image, n):
    rows = (ids.cpu().sort().values[:, None] * per_image + torch.arange(per_image)).ravel()
    return rows[rows < n]


def check(queries, patches, images, per_image, k, gallery=None, limits=LIMITS):
    """Search, and compare each batch item with all distances in float64."""
    distances, ids = fused_in_images(
        queries, patches if gallery is None else gallery, images, per_image, k, limits
    )
    assert distances.dtype == torch.float32 and ids.dtype == torch.int64
    assert distances.shape == ids.shape == (*queries.shape[:2], k)
    distances, ids = distances.cpu().double(), ids.cpu()
    for item in range(len(queries)):
        rows = rows_of(images[item], per_image, len(patches))
        everything = true_distances(queries[item], patches.cpu()[rows])
        expected = everything.sort(dim=1).values[:, :k]
        torch.testing.assert_close(distances[item], expected, rtol=1e-5, atol=1e-37)
        # Ties aside, the rows are those of the brute force: they are as near.
        place = torch.searchsorted(rows, ids[item])
        assert (rows[place] == ids[item]).all()
        torch.testing.assert_close(everything.gather(1, place), expected, rtol=1e-5, atol=1e-37)
        assert all(len(set(row)) == k for row in ids[item].tolist())
    return distances, ids


def search(queries, gallery, k=1):
    """Search a plain gallery, and compare."""
    images = torch.zeros(1, 1, dtype=torch.int64, device=DEVICE)
    check(queries[None], gallery, images, len(gallery), k)


@pytest.mark.parametrize(
    "b, q, c, n, per_image, k, kappa",
    [
        (1, 1, 1, 1, 1, 1, 1),
        (3, 33, 24, 6, 49, 4, 1),
        pytest.param(2, 40, 100, 5, 70, 3, 3, marks=pytest.mark.slow),
        (1, 5, 300, 3, 33, 3, 99),
        pytest.param(2, 65, 257, 4, 20, 2, 1, marks=pytest.mark.slow),
    ],
)
def test_random_vectors(b, q, c, n, per_image, k, kappa):
    generator = torch.Generator().manual_seed(0)
    queries = on_device(torch.randn(b, q, c, generator=generator))
    patches = on_device(torch.randn(n * per_image, c, generator=generator))
    images = on_device(torch.stack([torch.randperm(n, generator=generator)[:k] for _ in range(b)]))
    check(queries, patches, images, per_image, kappa)


@given(st.data(), st.integers(1, 4), st.integers(1, 40), st.integers(1, 20), st.integers(0, 99))
@examples(20)
def test_images_only_searched_among_those_named(data, n, per_image, channels, seed):
    random = np.random.default_rng(seed)
    short = data.draw(st.integers(0, per_image - 1))
    patches = random.integers(0, 4, (max(n * per_image - short, per_image), channels))
    patches = on_device(patches.astype(np.float32))
    n = -(-len(patches) // per_image)
    k = data.draw(st.integers(1, n))
    images = on_device(np.stack([random.permutation(n)[:k] for _ in range(2)]))
    least = min(len(rows_of(ids, per_image, len(patches))) for ids in images)
    kappa = data.draw(st.integers(1, least))
    queries = on_device(random.standard_normal((2, 3, channels), np.float32))
    check(queries, patches, images, per_image, kappa)


finite = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
    elements=st.floats(-1e6, 1e6, width=32),
)


@given(finite, st.integers(0, 99), st.integers(-30, 30))
@examples(25)
def test_any_values_at_any_scale(gallery, seed, exponent):
    random = np.random.default_rng(seed)
    near = gallery[random.integers(0, len(gallery), 5)]
    queries = near + random.standard_normal(near.shape, np.float32) * random.choice([0, 1e-3, 1e3])
    factor = np.float32(2.0**exponent)
    search(on_device(queries.astype(np.float32) * factor), on_device(gallery * factor))


@given(finite, st.integers(0, 99))
@examples(15)
def test_a_vector_of_the_gallery_finds_itself(gallery, seed):
    order = np.random.default_rng(seed).permutation(len(gallery))
    distances, _ = fused(on_device(gallery[order]), on_device(gallery))
    assert (distances == 0).all()


@pytest.mark.parametrize("k", [1, 7])
def test_zeros_and_duplicates(k):
    zeros = torch.zeros(70, 20, device=DEVICE)
    search(zeros[:5], zeros, k)
    search(torch.ones(5, 20, device=DEVICE), zeros, k)
    twice = torch.randn(50, 20, device=DEVICE).repeat(2, 1)
    search(twice[:9], twice, k)


@pytest.mark.slow
@pytest.mark.parametrize("distance", [0, 1])
def test_of_equal_rows_the_first_is_found(distance):
    gallery = torch.zeros(130, 4, device=DEVICE)
    gallery[:40] = 9
    queries = torch.zeros(33, 4, device=DEVICE)
    queries[:, 0] = distance
    images = torch.tensor([[3, 1, 2]], device=DEVICE)
    distances, ids = fused_in_images(queries[None], gallery, images, 35)
    assert (distances == distance).all() and (ids == 40).all()


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("offset", [1e3, 1e6, 2.0**52])
def test_large_norms_with_small_differences(offset, k):
    """Clusters far from the centre: the bounds tell little, and differences decide."""
    generator = torch.Generator().manual_seed(1)
    towards = torch.randn(3, 24, generator=generator) * offset
    member = torch.arange(200) % 3
    gallery = towards[member] + torch.randn(200, 24, generator=generator) * (offset * 1e-6)
    queries = on_device(gallery[::5] * (1 + 1e-7))
    images = torch.arange(4, device=DEVICE)[None]
    check(queries[None], on_device(gallery), images, 50, k)


@pytest.mark.slow
def test_one_row_of_a_huge_norm():
    gallery = torch.randn(150, 24)
    gallery[77] = 1e12
    search(on_device(torch.randn(20, 24)), on_device(gallery), 2)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-45, 1e-39, 1e-30, 1e-20])
def test_tiny_values(scale):
    gallery = torch.randn(70, 9, dtype=torch.float64) * scale
    search(on_device(gallery[:7].float() * 2), on_device(gallery.float()))
    search(torch.ones(3, 9, device=DEVICE), on_device(gallery.float()))


@pytest.mark.parametrize("k", [1, 40])
def test_one_channel_and_all_rows(k):
    random = np.random.default_rng(0)
    gallery = on_device(random.standard_normal((40, 1), np.float32))
    search(on_device(random.standard_normal((35, 1), np.float32)), gallery, k)


def near_ties():
    """Return queries and a gallery where rounding hides which of two rows is nearer."""
    random = np.random.default_rng(2)
    queries = torch.from_numpy(random.standard_normal((40, 64), np.float32))
    step = torch.from_numpy(random.standard_normal((40, 64), np.float32))
    step *= 2 / step.norm(dim=1, keepdim=True)
    other = torch.from_numpy(random.standard_normal((40, 64), np.float32))
    other *= 2 / other.norm(dim=1, keepdim=True)
    gallery = torch.cat([queries + step * (1 + 1e-4), queries + other])
    return on_device(queries), on_device(gallery)


@pytest.mark.slow
def test_near_ties_that_rounding_would_get_wrong():
    queries, gallery = near_ties()
    prepared = prepare(gallery, 40)
    low = ((queries - prepared.centre) * prepared.scale).half().float()
    scores = low @ prepared.rows[:80, :64].float().T - prepared.half
    nearest = true_distances(queries, gallery).argmin(1)
    assert (scores.argmax(1).cpu() != nearest).sum() > 3
    images = torch.arange(2, device=DEVICE)[None]
    _, ids = check(queries[None], gallery, images, 40, 1, prepared)
    assert (ids[0, :, 0] == nearest).all()


def bounds(queries, gallery):
    """Return upper bounds [Q, groups], floors [Q], and the groups' best exact scores.

    The gallery stands for four images of 75 rows, of which three are searched.
    """
    prepared = prepare(gallery, 75)
    images = torch.tensor([[0, 1, 3]], device=DEVICE)
    space = Workspace(len(queries) * 3 * prepared.groups, 1, queries.device)
    best = torch.empty(1, len(queries), dtype=torch.int64, device=DEVICE)
    bad = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    part = screen_queries(queries[None], prepared, images, space, best, bad)
    assert not bad
    centre = prepared.centre.double()
    x = (queries.double() - centre) * prepared.scale
    y = (gallery.double() - centre) * prepared.scale
    scores = (x @ y.T - y.square().sum(1) / 2) * part.stats[2].double()[:, None]
    scores = scores.view(-1, 4, 75)[:, [0, 1, 3]]
    # Rows 64 apart, and 16 neighbours, share a group.
    scores = torch.nn.functional.pad(scores, (0, 53), value=-torch.inf).view(-1, 3, 2, 4, 16)
    return part.upper[0].T.double(), part.floor[0].double(), scores.amax((2, 4)).flatten(1)


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_bounds_hold_the_exact_scores(spread):
    random = np.random.default_rng(3)
    norms = np.exp(random.standard_normal((300, 1)) * spread).astype(np.float32)
    gallery = on_device(random.standard_normal((300, 70), np.float32) * norms + 5)
    queries = on_device(random.standard_normal((40, 70), np.float32) * norms[:40] + 5)
    upper, floor, best = bounds(queries, gallery)
    assert (upper >= best).all() and (floor <= best.amax(1)).all()
    # Nor are they so loose that they hold anything: few groups are left where norms are alike.
    assert spread or (upper >= floor[:, None]).sum() < 3 * len(queries)


@pytest.mark.slow
@pytest.mark.parametrize("rounded", ["queries", "gallery", "both"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_bounds_hold_where_all_roundings_add_up(rounded, sign):
    """Every channel is rounded towards zero, or from it, by nearly half a float16 step."""
    random = np.random.default_rng(5)
    signs = random.choice([-1.0, 1.0], (150, 64)).astype(np.float32)
    off = signs * np.float32(1 + 2**-11 * (1 if sign > 0 else 3) - sign * 2.0**-16)
    gallery = off if rounded != "queries" else signs
    queries = off if rounded != "gallery" else signs
    # Each row and its opposite, so that the centre is zero.
    upper, floor, best = bounds(on_device(queries), on_device(np.concatenate([gallery, -gallery])))
    assert (upper >= best).all() and (floor <= best.amax(1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 5])
def test_bounded_memory_when_everything_is_left(k):
    limits = Limits(bound_bytes=4 * 6 * 130, pairs=128)
    generator = torch.Generator().manual_seed(4)
    same = torch.randn(1, 24, generator=generator)
    patches = on_device(same + torch.randn(6 * 40, 24, generator=generator) * 1e-6)
    queries = on_device(1000 * torch.randn(2, 130, 24, generator=generator))
    images = torch.tensor([[5, 0, 3], [1, 2, 4]], device=DEVICE)
    assert len(list(parts_of(2, 130, 6, limits))) == 4
    check(queries, patches, images, 40, k, limits=limits)


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 2])
def test_real_features_of_real_images(lite, k):
    train = lite(np.stack([view[:96, :96] for view in texture("gravel", 6)]))
    views = texture("gravel", 2, 1)
    new = lite(np.stack([views[0][:96, :96], with_hole(views[1])[80:176, 80:176]]))
    images = torch.tensor([[4, 0, 5, 1], [0, 1, 2, 3]], device=DEVICE)
    for ours, theirs in zip(train.levels, new.levels, strict=True):
        ours, theirs = ours[:, :9, :9].to(DEVICE), theirs[:, :4, :4].to(DEVICE)
        patches = ours.flatten(0, 2).contiguous()
        check(theirs.flatten(1, 2), patches, images, ours.shape[1] * ours.shape[2], k)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy on what is bad
def test_bad_calls():
    gallery = torch.randn(20, 4, device=DEVICE)
    images = torch.zeros(1, 1, dtype=torch.int64, device=DEVICE)
    queries = torch.randn(1, 3, 4, device=DEVICE)
    with pytest.raises(ValueError, match="5 channels and the gallery has 4"):
        fused_in_images(torch.randn(1, 3, 5, device=DEVICE), gallery, images, 10)
    with pytest.raises(ValueError, match="k = 11 must lie between 1 and 10"):
        fused_in_images(queries, gallery, images, 10, 11)
    with pytest.raises(ValueError, match="k = 8 must lie between 1 and 7"):
        fused_in_images(queries, gallery[:17], images + 1, 10, 8)
    with pytest.raises(ValueError, match="prepared with 10 patches an image"):
        fused_in_images(queries, prepare(gallery, 10), images, 5)
    with pytest.raises(ValueError, match=r"pass \[1, K\]"):
        fused_in_images(queries, gallery, images[0], 10)
    for bad in (1e30, torch.inf, torch.nan):
        with pytest.raises(OverflowError, match="patches hold NaN, infinite or too large"):
            prepare(gallery * bad, 10)
        with pytest.raises(OverflowError, match="queries hold NaN, infinite or too large"):
            fused_in_images(queries * bad, gallery, images, 10)
    with pytest.raises(ValueError, match="pass float32"):
        prepare(gallery.double(), 10)


def without_interpreter(code):
    """Run Python code in a process of its own, where kernels are compiled."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=root, env=environment("TRITON_INTERPRET"), capture_output=True, text=True
    )


def test_tensors_on_the_cpu_are_refused():
    done = without_interpreter(
        "import torch; from spade_faiss.search.cuda import fused\n"
        "try: fused(torch.ones(2, 2), torch.ones(2, 2))\n"
        "except ValueError as error: print(error)"
    )
    assert "needs tensors on a CUDA device" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_for_a_gpu_that_is_not_here(capability):
    """The interpreter takes more than the compiler: this builds what a GPU would be given."""
    code = (Path(__file__).parent / "compile_kernels.py").read_text()
    done = without_interpreter(f"CAPABILITY = {capability}\n{code}")
    assert done.returncode == 0, done.stderr
    built = dict(line.split() for line in done.stdout.splitlines())
    assert set(built) == {"lower", "screen", "screen_in_blocks", "collect", "rescore", "rescore_k"}
    assert built["screen"] == built["screen_in_blocks"] == "tensor-cores"
