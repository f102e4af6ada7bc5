"""compose.yaml: that it holds together, and that its commands and variables are those of the installed packages.

No container is started. Each check is shown to refuse a fault that is planted into the file.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "compose.yaml").read_text(encoding="utf-8")

# Of the Compose specification.
TOP = {"name", "include", "services", "models", "networks", "volumes", "secrets", "configs"}
SERVICE = {
    *("build", "command", "configs", "depends_on", "deploy", "environment", "healthcheck", "hostname", "image", "init"),
    *("logging", "ports", "restart", "stop_grace_period", "user", "volumes"),
}
HEALTH = {"test", "interval", "timeout", "retries", "start_period", "start_interval"}
CONDITIONS = {"service_healthy", "service_completed_successfully"}
# What a health check may call: what our image has, and the two others.
PROBES = {"preface": "python", "postgres": "pg_isready", "versity/versitygw": "wget"}

VARIABLE = re.compile(r"\$(?:\$|\{([^}]*)\}|(\w*))")
ASKED = re.compile(r"[A-Z][A-Z0-9_]*:(?:\?.{10,}|-.*)", re.DOTALL)
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|TOKEN")
ADDRESS_WITH_PASSWORD = re.compile(r"//[^/\s:@]*:[^/\s@]+@")
PINNED = re.compile(r"v?\d+(\.\d+)+")


def loaded(text: str = TEXT) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def values(node: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every string of the file and the key that it stands at."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from values(value, str(key))
    elif isinstance(node, list):
        for value in node:
            yield from values(value, where)
    elif isinstance(node, str):
        yield where, node


def faults(compose: Mapping[str, Any]) -> list[str]:
    """What is wrong with the file, in itself."""
    found = [f"top: {key}" for key in compose if key not in TOP and not key.startswith("x-")]
    for key, value in values(compose):
        for variable in VARIABLE.finditer(value):
            asked, bare = variable.groups()
            if bare is not None or (asked is not None and not ASKED.fullmatch(asked)):
                found.append(f"variable without a default or a message: {variable[0]}")
        if ADDRESS_WITH_PASSWORD.search(VARIABLE.sub("x", value)):
            found.append(f"password in an address: {key}")
        if SECRET.search(key) and not re.fullmatch(r"\$\{[^}]*:\?[^}]*\}", value):
            found.append(f"literal secret: {key}")
    for name, service in compose["services"].items():
        found += [f"{name}: {fault}" for fault in _of_service(service, compose)]
    waited = {other for service in compose["services"].values() for other in service.get("depends_on", ())}
    for name, service in compose["services"].items():
        # `docker compose up --wait` takes its end for a failure where nobody waits for that.
        if service.get("restart") == "no" and name not in waited:
            found.append(f"nobody waits for {name}")
    # What is built for several services is made anew for all of them, whichever one was meant.
    built = [service["image"] for service in compose["services"].values() if "build" in service]
    found += [f"built twice: {image}" for image in sorted(set(built)) if built.count(image) > 1]
    return found + [f"circle: {name}" for name in _circles(compose["services"])]


def _of_service(service: Mapping[str, Any], compose: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"key {key}" for key in service if key not in SERVICE)
    image, _, tag = service["image"].rpartition(":")
    if not PINNED.fullmatch(tag):
        yield f"image {service['image']}"
    for other, how in service.get("depends_on", {}).items():
        waited = compose["services"].get(other)
        if waited is None:
            yield f"waits for {other}"
        elif how["condition"] not in CONDITIONS:
            yield f"condition {how['condition']}"
        elif ("healthcheck" in waited) != (how["condition"] == "service_healthy"):
            yield f"{other} cannot be {how['condition']}"
    # Once: it ends and is not started again. Always: it says how it is.
    if service.get("restart") not in ("no", "unless-stopped"):
        yield "restart"
    elif (service["restart"] == "unless-stopped") != ("healthcheck" in service):
        yield "no health check"
    if check := service.get("healthcheck"):
        yield from (f"health {key}" for key in check if key not in HEALTH)
        if check["test"][:2] != ["CMD", PROBES.get(image, "")]:
            yield f"health {check['test'][:2]}"
    for volume in service.get("volumes", ()):
        if volume.split(":")[0] not in compose["volumes"]:
            yield f"volume {volume}"
    for config in service.get("configs", ()):
        if config["source"] not in compose["configs"]:
            yield f"config {config['source']}"
    for port in service.get("ports", ()):
        if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port):
            yield f"port {port}"


def _circles(services: Mapping[str, Any]) -> list[str]:
    waiting = {name: set(service.get("depends_on", ())) for name, service in services.items()}
    while free := [name for name, others in waiting.items() if not others & set(waiting)]:
        for name in free:
            del waiting[name]
    return list(waiting)


# Old text, new text, and the fault that is then named. The old text is replaced wherever it stands.
PLANTED = {
    "an unknown key": ("\nvolumes:\n", "\nvolume: {}\nvolumes:\n", "top: volume"),
    "a misspelt key": ("    hostname: worker", "    hostnam: worker", "worker: key hostnam"),
    "a newest image": ("versitygw:v1.7.0", "versitygw:latest", "s3: image versity/versitygw:latest"),
    "an image without a version": ("postgres:16.14", "library/postgres", "postgres: image library/postgres"),
    "an image of two builders": ("  mlflow:\n", "  mlflow:\n    build: {context: .}\n", "built twice: preface:0.1.0"),
    "an unknown service": ("      mlflow: {cond", "      mlfow: {cond", "worker: waits for mlfow"),
    "only started": (
        "postgres: {condition: service_healthy}",
        "postgres: {condition: service_started}",
        "prefect: condition service_started",
    ),
    "the health of one that ends": (
        "buckets: {condition: service_completed_successfully}",
        "buckets: {condition: service_healthy}",
        "mlflow: buckets cannot be service_healthy",
    ),
    "the end of one that stays": (
        "s3: {condition: service_healthy}",
        "s3: {condition: service_completed_successfully}",
        "buckets: s3 cannot be service_completed_successfully",
    ),
    "a circle": (
        "    environment: *s3\n    depends_on:\n",
        "    environment: *s3\n    depends_on:\n      worker: {condition: service_healthy}\n",
        "circle: buckets",
    ),
    "an end that nobody waits for": (
        "      folders: {condition: service_completed_successfully}\n",
        "",
        "nobody waits for folders",
    ),
    "no restart": ('    restart: "no"\n    command:', "    command:", "buckets: restart"),
    "a program that the image lacks": ("[CMD, wget, -q,", "[CMD, curl, -q,", "s3: health ['CMD', 'curl']"),
    "no volume": ("\n  bases:\n", "\n", "worker: volume bases:/app/bases"),
    "no config": ("source: dvc-remote", "source: dvc", "worker: config dvc"),
    "a port for all": ('"127.0.0.1:5000:5000"', '"5000:5000"', "mlflow: port 5000:5000"),
    "a literal password": (
        'POSTGRES_PASSWORD: "${POSTGRES_PASSWORD:?the password of PostgreSQL; write it into .env}"',
        "POSTGRES_PASSWORD: preface",
        "literal secret: POSTGRES_PASSWORD",
    ),
    "a password by default": (":?the secret of", ":-the secret of", "literal secret: AWS_SECRET_ACCESS_KEY"),
    "a password in an address": (
        "preface@postgres/mlflow",
        "preface:${X:?the password}@postgres/mlflow",
        "password in",
    ),
    "no message": ("${HF_HUB_OFFLINE:-1}", "${HF_HUB_OFFLINE}", "variable without a default or a message: ${HF_HUB"),
    "a bare variable": ("${HF_HUB_OFFLINE:-1}", "$HF_HUB_OFFLINE", "variable without a default or a message: $HF_HUB"),
}


def test_the_file_holds_together() -> None:
    assert faults(loaded()) == []


@pytest.mark.parametrize(("old", "new", "fault"), PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_named(old: str, new: str, fault: str) -> None:
    assert old in TEXT

    assert any(each.startswith(fault) for each in faults(loaded(TEXT.replace(old, new))))


def test_the_image_is_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

    assert loaded()["x-ours"]["image"] == f"preface:{version}"


@pytest.mark.parametrize("file", [".gitignore", ".dockerignore"])
def test_the_passwords_get_into_no_commit_and_no_image(file: str) -> None:
    ignored = (ROOT / file).read_text(encoding="utf-8").splitlines()

    assert {".env", "/.env"} & set(ignored), f"{file} does not name .env, which compose.yaml takes its passwords from"


def test_the_gpu_that_is_commented_out_fits() -> None:
    text = re.sub(r"^    # (?=deploy:| )", "    ", TEXT, flags=re.MULTILINE)
    worker = loaded(text)["services"]["worker"]

    assert faults(loaded(text)) == []
    assert worker["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


# --- Compose itself, where it is --------------------------------------------------------------------------------------

ANSWERS = {"POSTGRES_PASSWORD": "a", "S3_ACCESS_KEY": "b", "S3_SECRET_KEY": "c"}


def _compose(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    where = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = ["docker", "compose", *arguments]
    return subprocess.run(command, cwd=ROOT, env=where | environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("missing", ["", *ANSWERS])
def test_compose_takes_it_and_asks_for_what_is_missing(tmp_path: Path, missing: str) -> None:
    if not shutil.which("docker") or _compose("version").returncode != 0:
        pytest.skip("`docker compose` does not work here")
    nothing = tmp_path / ".env"
    nothing.touch()
    given = {name: value for name, value in ANSWERS.items() if name != missing}
    done = _compose("--file", "compose.yaml", "--env-file", str(nothing), "config", "--quiet", **given)

    assert (done.returncode == 0) == (not missing), done.stderr
    assert missing in done.stderr


# --- commands: read by the packages' own parsers, and not run ---------------------------------------------------------


def _click(group: click.Group, tokens: list[str]) -> None:
    """What click does before it runs a command."""
    with group.make_context(tokens[0], tokens[1:]) as context:
        name, command, rest = group.resolve_command(context, tokens[1:])
        assert command is not None
        command.make_context(name, rest, parent=context).close()


def _mlflow_cli() -> click.Group:
    with warnings.catch_warnings():
        # Its own classes' type hints, as it is imported.
        warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
        from mlflow.cli import cli
    assert isinstance(cli, click.Group)
    return cli


def _mlflow(tokens: list[str]) -> None:
    _click(_mlflow_cli(), tokens)


def _preface(tokens: list[str]) -> None:
    from cli.main import preface

    _click(preface, tokens)


def _prefect(tokens: list[str]) -> None:
    from prefect.cli._app import _app

    _app.parse_args(tokens[1:], exit_on_error=False, print_error=False)


PARSERS: dict[str, Callable[[list[str]], None]] = {"mlflow": _mlflow, "prefect": _prefect, "preface": _preface}
COMMANDS = {
    name: service["command"]
    for name, service in loaded()["services"].items()
    if service.get("command", [""])[0] in PARSERS
}


def test_the_commands_are_these() -> None:
    assert {name: command[:3] for name, command in COMMANDS.items()} == {
        "mlflow": ["mlflow", "server", "--backend-store-uri=postgresql://preface@postgres/mlflow"],
        "prefect": ["prefect", "server", "start"],
        "worker": ["preface", "schedule"],
    }


@pytest.mark.parametrize("service", COMMANDS)
def test_a_command_is_one_that_its_package_reads(service: str) -> None:
    PARSERS[COMMANDS[service][0]](COMMANDS[service])


@pytest.mark.parametrize("service", COMMANDS)
@pytest.mark.parametrize("wrong", ["--hots=0.0.0.0", "surplus"])
def test_a_wrong_argument_is_refused(service: str, wrong: str) -> None:
    from cyclopts import CycloptsError

    with pytest.raises((click.UsageError, CycloptsError)):
        PARSERS[COMMANDS[service][0]]([*COMMANDS[service], wrong])


@pytest.mark.parametrize("service", COMMANDS)
def test_a_command_that_is_not_there_is_refused(service: str) -> None:
    from cyclopts import CycloptsError

    program, _, *rest = COMMANDS[service]
    with pytest.raises((click.UsageError, CycloptsError)):
        PARSERS[program]([program, "sevrer", *rest])


@pytest.mark.parametrize("service", ["mlflow", "prefect"])
def test_a_server_listens_where_its_health_is_asked_and_its_clients_look(service: str) -> None:
    file = loaded()
    said = shlex.join(file["services"][service]["command"]).replace(" ", "=")
    port = re.findall(r"--port=(\d+)", said)[0]
    client = {"mlflow": "MLFLOW_TRACKING_URI", "prefect": "PREFECT_API_URL"}[service]

    assert "--host=0.0.0.0" in said
    assert file["services"][service]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/" in file["services"][service]["healthcheck"]["test"][-1]
    assert file["services"]["worker"]["environment"][client].startswith(f"http://{service}:{port}")


def test_mlflow_lets_the_worker_and_the_browser_in_and_nobody_else() -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    option = next(word for word in COMMANDS["mlflow"] if word.startswith("--allowed-hosts="))
    allowed = option.partition("=")[2].split(",")

    assert all(is_allowed_host_header(allowed, host) for host in ("mlflow:5000", "localhost:5000", "127.0.0.1:5000"))
    assert not is_allowed_host_header(allowed, "elsewhere.example:5000")


# --- Python inside the file -------------------------------------------------------------------------------------------


def _python(service: str, key: str = "command") -> str:
    found = loaded()["services"][service]
    words: list[str] = found["healthcheck"]["test"][1:] if key == "healthcheck" else found["command"]
    assert words[:2] == ["python", "-c"]
    return words[2]


def _run(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    where = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=where, capture_output=True, text=True)


def test_a_worker_that_does_not_run_is_not_healthy(tmp_path: Path) -> None:
    code = _python("worker", "healthcheck")
    alone = _run(code, tmp_path)
    # Two that run: this process itself, by the list that `preface schedule` keeps.
    note = (
        "import os\nfrom flows.process import local_project, process_list\n"
        "local_project.STATION.mkdir(parents=True)\n"
        "process_list.note([('Worker', os.getpid(), None)], local_project.STATION)\n"
    )
    running = _run(note + code, tmp_path)

    assert (alone.returncode, "AssertionError" in alone.stderr) == (1, True)
    assert running.returncode == 0, running.stderr


@pytest.mark.parametrize("service", ["mlflow", "prefect"])
def test_a_server_that_does_not_answer_is_not_healthy(tmp_path: Path, service: str, site: Any) -> None:
    code, times = re.subn(r"http://127\.0\.0\.1:\d+", site.url, _python(service, "healthcheck"))
    site.put({"mlflow": "/health", "prefect": "/api/health"}[service])
    healthy = _run(code, tmp_path)
    site.pages.clear()

    assert (times, healthy.returncode) == (1, 0), healthy.stderr
    assert _run(code, tmp_path).returncode == 1


@pytest.mark.flow
def test_the_buckets_are_made_once(tmp_path: Path, bucket: Any) -> None:
    code = _python("buckets")
    store = bucket.meta.client
    done = [_run(code, tmp_path), _run(code, tmp_path)]
    names = {each["Name"] for each in store.list_buckets()["Buckets"]}
    nowhere = _run(code, tmp_path, AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1")

    assert [each.returncode for each in done] == [0, 0], done[-1].stderr
    assert names >= {"mlflow", "dvc"}
    assert "--artifacts-destination=s3://mlflow" in COMMANDS["mlflow"]
    assert nowhere.returncode == 1


@pytest.mark.flow
def test_dvc_reads_its_remote_from_the_config(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc" / "config")
    local = tmp_path / ".dvc" / "config.local"

    def asked(name: str) -> str:
        command = [sys.executable, "-m", "dvc", "config", name]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout.strip()

    local.write_text("[core]\n    no_scm = true\n", encoding="utf-8")  # as in the image
    before = asked("core.remote")
    local.write_text(loaded()["configs"]["dvc-remote"]["content"], encoding="utf-8")

    assert (before, asked("core.remote")) == ("local", "bucket")
    assert (asked("remote.bucket.url"), asked("core.no_scm")) == ("s3://dvc", "true")


# --- variables --------------------------------------------------------------------------------------------------------


def _known(name: str) -> bool:
    """Whether the installed Prefect or MLflow reads a variable of this name."""
    if name.startswith("PREFECT_"):
        from prefect import settings

        return hasattr(settings, name)
    from mlflow import environment_variables

    options = _mlflow_cli().commands["server"].params
    return hasattr(environment_variables, name) or name in {option.envvar for option in options}


VARIABLES = sorted(
    {
        name
        for service in loaded()["services"].values()
        for name in service.get("environment", {})
        if name.startswith(("PREFECT_", "MLFLOW_"))
    }
)


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_is_one_that_its_package_reads(name: str) -> None:
    assert _known(name)


@pytest.mark.parametrize("name", VARIABLES)
def test_a_misspelt_variable_is_not_taken_for_one(name: str) -> None:
    assert not _known(f"{name[:-2]}{name[-1]}{name[-2]}")


def test_the_leases_are_kept_where_prefect_has_a_module() -> None:
    module = loaded()["services"]["prefect"]["environment"]["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]
    found = importlib.util.find_spec(module)

    assert found is not None
    assert "class ConcurrencyLeaseStorage" in Path(str(found.origin)).read_text(encoding="utf-8")
    assert importlib.util.find_spec(module + "s") is None
