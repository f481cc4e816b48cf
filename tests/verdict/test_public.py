"""The names that others rely on."""

import subprocess
import sys

from spade_faiss import verdict


def test_every_public_name_is_there_and_described():
    for name in verdict.__all__:
        value = getattr(verdict, name)
        assert not callable(value) or value.__doc__, name


def test_no_network_and_no_index_is_needed():
    """Statistics are had without PyTorch and FAISS, which take seconds to import."""
    code = (
        "import sys, spade_faiss.verdict; "
        "sys.exit(', '.join({'torch', 'faiss'} & {*sys.modules}) or None)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
