"""The tests.

They run alike on all machines: GPUs are hidden, and Triton's kernels run in its interpreter.
`test_cuda` starts those that need a GPU anew, with SPADE_FAISS_TEST_CUDA=1, where there is one.
"""

import os

if os.environ.get("SPADE_FAISS_TEST_CUDA") != "1":
    # Both are read later: when torch looks for GPUs, and when triton is imported.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["TRITON_INTERPRET"] = "1"

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share out the processors
    count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
