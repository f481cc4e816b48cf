"""The exact searches of this machine, for tests that all of them have to pass."""

import pytest

from spade_faiss.search.native import runnable

KERNELS = [*runnable()] or [
    pytest.param("", marks=pytest.mark.skip(reason="needs the compiled kernels"))
]


@pytest.fixture(params=KERNELS)
def kernel(request, monkeypatch):
    """The name of compiled kernels, which search for the length of the test."""
    monkeypatch.setenv("SPADE_FAISS_KERNEL", request.param)
    return request.param


@pytest.fixture(params=KERNELS[:1])
def fastest(request, monkeypatch):
    """The name of the fastest of them, for what does not depend on instructions."""
    monkeypatch.setenv("SPADE_FAISS_KERNEL", request.param)
    return request.param


@pytest.fixture(params=["faiss", *KERNELS])
def engine(request, monkeypatch):
    """An engine on the CPU: FAISS, and the compiled kernels for each set of instructions."""
    if request.param == "faiss":
        return "faiss"
    monkeypatch.setenv("SPADE_FAISS_KERNEL", request.param)
    return "screened"
