"""The Triton kernels of the search on a GPU; `docs/search.md` says why their result is exact."""
