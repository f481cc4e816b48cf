"""Compile every kernel for a CUDA device of compute capability CAPABILITY / 10; print what for."""
# ruff: noqa: F821

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from spade_faiss.search.cuda.kernels.collect import collect
from spade_faiss.search.cuda.kernels.lower import lower
from spade_faiss.search.cuda.kernels.rescore import rescore
from spade_faiss.search.cuda.kernels.screen import screen

LOW = ("low", "rows", "low_queries")
INTEGERS = {
    "images": "*i64",
    "best": "*i64",
    "who": "*i32",
    "where": "*i32",
    "count": "*i32",
    "bad": "*i32",
}
FLOATS = ("scale", "limit", "grow", "half_gamma", "scale_squared")
NUMBERS = (
    "n",
    "channels",
    "n_queries",
    "n_all",
    "n_images",
    "per_image",
    "n_rows",
    "members",
    "total",
    "first",
    "last",
    "capacity",
)


def type_of(kernel, name):
    if name in LOW or (name == "queries" and kernel is screen):
        return "*fp16"
    if name in FLOATS:
        return "fp32"
    return "i32" if name in NUMBERS else INTEGERS.get(name, "*fp32")


def build(label, kernel, **constants):
    names = kernel.arg_names
    types = {n: "constexpr" if n in constants else type_of(kernel, n) for n in names}
    aligned = [i for i, n in enumerate(names) if types[n].startswith("*") or n == "per_image"]
    source = ASTSource(
        kernel,
        types,
        {(names.index(n),): v for n, v in constants.items()},
        {(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    options = {"num_warps": 8, "num_stages": 3}
    built = triton.compile(source, target=GPUTarget("cuda", CAPABILITY, 32), options=options)  # type: ignore[name-defined]
    product = "wgmma" if CAPABILITY == 90 else "mma.sync"  # type: ignore[name-defined]
    print(label, "tensor-cores" if product in built.asm["ptx"] else "cores")


build("lower", lower, CHANNELS=256, BLOCK=256, ROWS=16, FIT=True)
group = {"STRIDE": 64, "FOLD": 2}
tile = group | {"QUERIES": 128, "ROWS": 64}
build("screen", screen, CHANNELS=256, BLOCK=256, **tile)
build("screen_in_blocks", screen, CHANNELS=512, BLOCK=64, **tile)
build("collect", collect, QUERIES=128, GROUPS=64)
rows = group | {"CHANNELS": 256, "BLOCK": 128, "CHUNK": 32}
build("rescore", rescore, **rows, ONE=True)
build("rescore_k", rescore, **rows, ONE=False)
