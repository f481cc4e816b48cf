"""The CPU image's last stage and what docs/docker.md says of it, with a real engine.

Building the image as a whole takes minutes; tests/project/try_images.py does that. Here the last
stage of its Dockerfile, as it is, is built upon an empty base, and the program is copied in. This
machine's Python and libraries are mounted, read-only.
"""

import io
import shutil
import site
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

import pytest

from tests.engine import engine

from .containers import Caller, make_parts
from .pages import ROOT

__all__ = ["engine"]  # a fixture
pytestmark = pytest.mark.slow
BASE = "spade-faiss-base"


@pytest.fixture
def reachable():
    """A folder that every user may enter; in it `work`, which every user may write to."""
    with tempfile.TemporaryDirectory(prefix="spade-faiss-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "work").mkdir()
        (folder / "work").chmod(0o777)
        yield folder


def empty_root():
    """Return a tar of an empty root, whose programs and libraries are to be mounted at /usr."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, mode in (("usr", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("proc", 0o755)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            file.addfile(entry)
        for name in ("bin", "lib", "lib64"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
            file.addfile(entry)
    return buffer.getvalue()


def put_program(folder):
    """Make what the stages before the last leave: an environment, the program, two folders."""
    environment = folder / "packages" / "opt" / "spade"
    venv.create(environment, with_pip=False)
    packages = next(environment.glob("lib/python3*/site-packages"))
    # The packages of this environment, but not its editable installation of the program.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    program = folder / "program" / "program" / "opt" / "spade"
    shutil.copytree(
        ROOT / "spade_faiss",
        program / packages.relative_to(environment) / "spade_faiss",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    command = program / "bin" / "spade-faiss"
    command.parent.mkdir()
    command.write_text(
        "#!/opt/spade/bin/python\nimport sys\nfrom spade_faiss.cli import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    for name in ("data", "cache"):
        made = folder / "folders" / "folders" / name
        made.mkdir(parents=True)
        made.chmod(0o1777)


def last_stage():
    """Return the CPU image's last stage, which copies from images instead of stages."""
    text = (ROOT / "docker" / "cpu.Dockerfile").read_text()
    head = next(line for line in text.splitlines() if line.startswith("ARG PYTHON="))
    return f"{head}\n{text[text.rindex('FROM ${PYTHON}') :]}"


@pytest.fixture
def image(engine, reachable):
    """The image, built by the engine under the name of the page."""
    built = reachable / "built"
    put_program(built)
    for name in ("packages", "program", "folders"):
        with tarfile.open(built / f"{name}.tar", "w") as file:
            file.add(built / name, ".")
        engine("import", built / f"{name}.tar", f"{name}:latest")
    (built / "empty.tar").write_bytes(empty_root())
    engine("import", built / "empty.tar", BASE)
    context = reachable / "context"
    (context / "docker").mkdir(parents=True)
    shutil.copy(ROOT / "docker" / "healthcheck.py", context / "docker")
    (context / "Dockerfile").write_text(last_stage())
    engine("build", "--build-arg", f"PYTHON={BASE}", "--tag", "spade-faiss:cpu", context)


def mounts():
    """Return options that mount this machine's Python and libraries."""
    places = {"/usr", sys.base_prefix, *site.getsitepackages()}
    inner = {one for one in places for other in places if one.startswith(f"{other}/")}
    return [f"--volume={place}:{place}:ro" for place in sorted(places - inner)]


def test_the_pages_commands_in_containers(engine, image, reachable, lite):
    work = reachable / "work"
    make_parts(work)
    caller = Caller(engine, work, [*mounts(), "--health-interval=1s"])
    caller.inspects()
    caller.uses_the_service()
