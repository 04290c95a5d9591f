"""deploy/: what the container file, the compose file and the units name is there, as far as that shows without them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from config.environment import Environment
from rollout.agent.settings import AgentSettings
from tests.host import section

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
CONTAINER = (DEPLOY / "Containerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
#: Kubernetes whose schemas the manifest is checked against.
KUBERNETES_RELEASE = "1.35"
KUBERNETES = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}
POD = KUBERNETES["StatefulSet"]["spec"]["template"]["spec"]
PODS = {each["name"]: each for each in POD["containers"]}
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "CapabilityBoundingSet": "",
}


def unit(path):
    return section(path.read_text())


def image_command():
    return json.loads(CONTAINER.rsplit("\nCMD ", 1)[1].replace("\\\n", ""))


def commands():
    """Each command that any of the four starts, in words."""
    yield image_command()
    ours = [each for each in COMPOSE["services"].values() if each["image"].startswith("${")]
    yield from (each["command"] for each in ours if "command" in each)
    yield from (shlex.split(unit(path)["ExecStart"][0]) for path in UNITS)
    yield PODS["agent"]["command"]


def test_a_crash_in_native_code_is_in_the_log():
    assert "PYTHONFAULTHANDLER=1 " in CONTAINER
    assert [each.name for each in UNITS if "PYTHONFAULTHANDLER=1" not in unit(each)["Environment"]] == []


def test_all_folders_of_code_are_copied():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {each.rstrip("*") for each in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    copied = dict(re.findall(r"^COPY (\w+) (\w+)$", CONTAINER, re.MULTILINE))
    assert packages == set(copied) == set(copied.values())
    assert all((ROOT / each).is_dir() for each in copied)
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{each}" for each in (*packages, "pyproject.toml", "requirements.lock")} <= set(kept)


def test_the_image_takes_only_what_the_lock_names():
    assert "uv pip install --python /opt/modfleet --constraint requirements.lock" in CONTAINER
    (uv,) = re.findall(r"^uv==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert f"astral-sh/uv:{uv} " in CONTAINER


def test_every_image_is_pinned():
    images = re.findall(r"(?:^FROM |--from=)(\S+:\S+)", CONTAINER, re.MULTILINE)
    images += [each["image"] for each in PODS.values()]
    images += [each["image"] for each in COMPOSE["services"].values() if not each["image"].startswith("${")]
    assert len(images) >= 5
    for image in images:
        assert re.search(r":\d+\.\d+(\.\d+)?(-[\w.-]+)?$", image), image


def test_the_image_runs_as_nobody_in_particular():
    assert re.findall(r"^USER (.*)", CONTAINER, re.MULTILINE)[-1] == "10001:10001"
    assert "HEALTHCHECK" in CONTAINER


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_each_command_is_there(words):
    program, *rest = words
    if program == "sh":
        inner = [shlex.split(each) for each in rest[1].split("&&")]
        assert [each[0] for each in inner] == ["modfleet-manage"] * len(inner)
        return
    assert (BIN / Path(program).name).exists()
    if "-A" in rest:
        module = ROOT / rest[rest.index("-A") + 1].replace(".", "/")
        assert (module / "celery.py").exists()
    if program.endswith("modfleet-manage"):
        assert list(ROOT.glob(f"*/management/commands/{rest[-1]}.py"))


def test_the_server_knows_its_options():
    done = subprocess.run([BIN / "granian", "--help"], capture_output=True, text=True)
    for option in (each for each in image_command() if each.startswith("--")):
        assert option in done.stdout


def test_the_unit_and_the_image_serve_alike():
    (started,) = unit(DEPLOY / "systemd/modfleet-control-plane.service")["ExecStart"]
    assert image_command()[1:] == shlex.split(started.replace("127.0.0.1", "0.0.0.0"))[1:]


def test_settings_are_real():
    names = {f"MODFLEET_{each.upper()}" for kind in (Environment, AgentSettings) for each in kind.__slots__}
    used = set(COMPOSE["x-modfleet"]["environment"])
    used |= {each.split("=")[0] for path in UNITS for each in unit(path).get("Environment", [])}
    used |= {each["name"] for each in PODS["agent"]["env"]}
    for name in used - {"DJANGO_SETTINGS_MODULE", "PYTHONFAULTHANDLER"}:
        assert name.removesuffix("_FILE") in names or name in names


def test_files_that_compose_mounts_are_there():
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).is_file() if source.startswith("./") else source in COMPOSE["volumes"]
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])


def test_no_secret_is_in_an_environment():
    public = {"MODFLEET_PUBLIC_URL", "MODFLEET_AGENT_BROKER_URL"}
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            is_public = name in public and "@" not in value
            assert not re.search("PASSWORD|SECRET|_URL$", name) or is_public or value.startswith("/")
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text()


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_hardened(path):
    found = unit(path)
    for key, value in HARDENED.items():
        assert found[key] == [value]
    assert found["User"][0].startswith("modfleet")
    assert found["Restart"] == ["always"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here; the other tests hold")
def test_systemd_accepts_the_units(tmp_path):
    (tmp_path / "bin").symlink_to(BIN)  # whose own path may have a space
    for path in UNITS:
        name = path.name.replace("@", "@node-1")
        (tmp_path / name).write_text(path.read_text().replace("/opt/modfleet/bin", str(tmp_path / "bin")))
    words = ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.glob("*.service"))]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- Kubernetes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KUBERNETES)
def test_kubernetes_accepts_the_manifest(kind):
    kubernetes_validate.validate(KUBERNETES[kind], KUBERNETES_RELEASE, strict=True)


def test_a_misspelt_field_of_the_manifest_is_found():
    wrong = json.loads(json.dumps(KUBERNETES["StatefulSet"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES_RELEASE, strict=True)


def test_the_parts_of_the_manifest_find_each_other():
    stateful, labels = KUBERNETES["StatefulSet"]["spec"], {"app": "cache"}
    assert stateful["template"]["metadata"]["labels"] == labels
    assert KUBERNETES["Service"]["spec"]["selector"] == stateful["selector"]["matchLabels"] == labels
    assert KUBERNETES["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert stateful["serviceName"] == KUBERNETES["Service"]["metadata"]["name"]
    volumes = {each["name"] for each in POD["volumes"]}
    volumes |= {each["metadata"]["name"] for each in stateful["volumeClaimTemplates"]}
    assert {mount["name"] for each in PODS.values() for mount in each["volumeMounts"]} == volumes


def test_the_server_sees_the_modules_at_the_agents_path_and_no_identity():
    env = {each["name"]: each.get("value", "") for each in PODS["agent"]["env"]}
    modules = env["MODFLEET_MODULES_DIR"]
    assert f"include {modules}/*.conf\n" in KUBERNETES["ConfigMap"]["data"]["valkey.conf"]
    agents, servers = ({mount["name"]: mount for mount in PODS[each]["volumeMounts"]} for each in ("agent", "server"))
    place = servers["modfleet"]["mountPath"]
    assert place == f"{agents['modfleet']['mountPath']}/{servers['modfleet']['subPath']}"
    assert modules.startswith(f"{place}/")
    assert not env["MODFLEET_IDENTITY_FILE"].startswith(f"{place}/")
    assert servers["modfleet"]["readOnly"]
    assert "secrets" not in servers


@pytest.mark.parametrize("name", PODS)
def test_containers_of_the_pod_have_no_rights(name):
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["fsGroup"] == POD["securityContext"]["runAsUser"]
    assert not POD["automountServiceAccountToken"]
    assert PODS[name]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_pod_runs_as_the_user_of_the_image():
    user = POD["securityContext"]
    assert re.findall(r"^USER (.*)", CONTAINER, re.MULTILINE)[-1] == f"{user['runAsUser']}:{user['runAsGroup']}"
