"""A training that is killed after its first checkpoint, and taken up by the same call."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
TRAIN = """
import os, signal, sys
from importlib import import_module
from pathlib import Path
import numpy as np, torch
from benchmarks.baselines import training
from spade_faiss.features import load_backbone
torch.set_num_threads(1)
module, name, steps, kept, out, killed = sys.argv[1:]
tests, kept = import_module(module), Path(kept)
save = training.save_checkpoint
def save_and_die(*arguments):
    save(*arguments)
    if killed == "True":
        os.kill(os.getpid(), signal.SIGKILL)
training.save_checkpoint = save_and_die
setting = tests.small(name, steps=int(steps), batch=2, keep_every=5)
method = tests.fitted(name, load_backbone("efficientnet_lite0"), tests.GOOD, setting, kept)
np.save(out, tests.judged(method))
print(method.taken_up)
"""


def train(module, name, steps, kept, out, *, killed=False):
    return subprocess.run(
        [sys.executable, "-c", TRAIN, module, name, str(steps), str(kept), str(out), str(killed)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def check_that_a_killed_training_ends_the_same(module, name, steps, tmp_path):
    """Train by what a test module has: `small`, `fitted`, `GOOD` and `judged`."""
    whole = train(module, name, steps, tmp_path / "whole.safetensors", tmp_path / "whole.npy")
    kept = tmp_path / "kept.safetensors"
    killed = train(module, name, steps, kept, tmp_path / "killed.npy", killed=True)
    assert killed.returncode == -signal.SIGKILL
    assert kept.exists() and not (tmp_path / "killed.npy").exists()
    again = train(module, name, steps, kept, tmp_path / "again.npy")
    assert (whole.stdout, again.stdout) == ("0\n", "5\n")
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), np.load(tmp_path / "whole.npy"))
