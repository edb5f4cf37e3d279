"""What can be said of the container files where no container engine runs."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import redis

from riverdelta import Settings
from riverdelta_gateway.settings import GatewaySettings
from riverdelta_gateway.turns.settings import TurnSettings
from tests.support.packaging import compose
from tests.support.packaging.deployment import OPERATIONS, redis_server, variables_of_operations
from tests.support.packaging.environment import CHECKOUT
from tests.support.servers import binaries

DOCKERFILE = (CHECKOUT / "ops" / "Dockerfile").read_text("utf-8")
DOCKERIGNORE = (CHECKOUT / ".dockerignore").read_text("utf-8").splitlines()

ENGINES = [path for path in binaries().values() if path]


VARIABLES = dict.fromkeys(re.findall(r"\$\{(\w+):\?", compose.TEXT), "x" * 32)
SERVICES = compose.services(VARIABLES)
ROLES = {"workers": "worker", "turns": "turns", "gateway": "gateway"}


@pytest.mark.parametrize("name", ["workers", "turns"])
def test_nothing_keeps_it_from_scaling(name: str) -> None:
    assert not {"container_name", "ports"} & set(SERVICES[name])


def test_only_the_gateway_is_published_and_on_this_machine_only() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"gateway"}
    gateway = SERVICES["gateway"]
    (published,) = gateway["ports"]
    address, _, inside = published.rpartition(":")
    assert address == "127.0.0.1:8000"
    environment = compose.environment_of(gateway, VARIABLES)
    assert environment["RIVERDELTA_GATEWAY_PORT"] == inside
    assert f"http://127.0.0.1:{inside}/healthz" in gateway["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_right_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not {"privileged", "devices", "pid", "ipc", "network_mode"} & set(service)
    # The entry point of Redis' image becomes another user.
    added = ["CHOWN", "SETGID", "SETUID"] if name == "redis" else []
    assert service.get("cap_add", []) == added
    writable = [volume for volume in service.get("volumes", []) if not volume.endswith(":ro")]
    assert writable == (["redis-data:/data"] if name == "redis" else [])


def test_images_are_named_by_an_exact_version() -> None:
    """A digest needs a registry: SECURITY.md says how to pin one."""
    base = SERVICES["workers"]["build"]["args"]["BASE_IMAGE"]
    assert re.search(rf"^ARG BASE_IMAGE={re.escape(base)}$", DOCKERFILE, re.MULTILINE)
    for image in (SERVICES["redis"]["image"], base):
        assert re.fullmatch(r"[\w/]+:\d+\.\d+\.\d+-\w+", image), image
        assert image in OPERATIONS


def test_passwords_and_the_secret_must_be_chosen() -> None:
    assert len(VARIABLES) == len(("default", *ROLES, "backend", "token secret"))
    assert "PASSWORD=" not in compose.TEXT
    for name in VARIABLES:
        others = {other: value for other, value in VARIABLES.items() if other != name}
        with pytest.raises(compose.Refused, match=name):
            compose.services(others)


def test_the_operations_page_makes_all_required_variables(tmp_path: Path) -> None:
    made = variables_of_operations(tmp_path)
    assert set(made) == set(VARIABLES)
    assert len(set(made.values())) == len(made)
    GatewaySettings.model_validate({"token_secret": made["RIVERDELTA_GATEWAY_TOKEN_SECRET"]})


@pytest.mark.parametrize("name", ROLES)
def test_a_service_is_given_its_own_password_only(name: str) -> None:
    values = {variable: f"the {variable}" for variable in VARIABLES}
    environment = compose.services(values)[name]["environment"]
    given = " ".join(str(value) for value in environment.values())
    password = f"RIVERDELTA_REDIS_{ROLES[name].upper()}_PASSWORD"
    assert f"redis://{ROLES[name]}:the {password}@redis:6379/0" in given
    assert {variable for variable in VARIABLES if "PASSWORD" in variable and variable in given} == {
        password
    }


@pytest.mark.parametrize("name", ROLES)
def test_a_service_runs_a_command_of_the_image_that_one_service_builds(name: str) -> None:
    service = SERVICES[name]
    assert service["command"] in (["riverdelta", "worker"], ["riverdelta", name])
    assert service["image"] == SERVICES["workers"]["image"]
    assert ("build" in service) == (name == "workers")
    assert ("pull_policy" in service) == (name != "workers")
    assert service["depends_on"] == {"redis": {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", ROLES)
def test_what_a_service_is_given_are_settings(name: str) -> None:
    known = {
        f"{settings.model_config['env_prefix']}{field}".upper()
        for settings in (Settings, TurnSettings, GatewaySettings)
        for field in settings.model_fields
    }
    known |= {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"}
    assert set(SERVICES[name]["environment"]) <= known


def test_settings_of_the_operations_page_are_passed_on() -> None:
    table = OPERATIONS.partition("## In production")[2].partition("\n## ")[0]
    settings = set(re.findall(r"^\| `(RIVERDELTA_\w+)`", table, re.MULTILINE))
    settings -= {"RIVERDELTA_QUEUE_URL"}  # here it is the same server
    handed_on = set(re.findall(r"RIVERDELTA_\w+", compose.TEXT))
    assert settings <= handed_on, settings - handed_on


def test_every_service_has_the_time_that_its_end_takes() -> None:
    turns, gateway = TurnSettings(), GatewaySettings()
    for name, at_most_s in (("turns", 2 * turns.drain_s), ("gateway", 2 * gateway.shutdown_s)):
        assert compose.seconds(SERVICES[name]["stop_grace_period"]) > at_most_s


def test_the_lock_of_the_image_has_every_extra_that_its_commands_need() -> None:
    lock = (CHECKOUT / "requirements" / "runtime.txt").read_text("utf-8")
    locked = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra in ("workers", "gateway", "backends", "cli"):
        needed = project["dependencies"] + project["optional-dependencies"][extra]
        assert {re.split(r"[^\w-]", one)[0] for one in needed} <= locked
    assert "://" not in lock


@pytest.mark.parametrize("password", ["", "with space", "a@b", "100%"])
def test_a_password_that_no_url_can_hold_is_refused(password: str) -> None:
    chosen = {name: value for name, value in VARIABLES.items() if "PASSWORD" in name}
    refused = subprocess.run(
        ["sh", CHECKOUT / "ops" / "redis-users.sh", "echo", "started"],
        env=os.environ | chosen | {"RIVERDELTA_REDIS_TURNS_PASSWORD": password},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "RIVERDELTA_REDIS_TURNS_PASSWORD: choose a password of letters"
    )
    assert not refused.stdout


def test_a_server_gets_no_password() -> None:
    started = subprocess.run(
        ["sh", CHECKOUT / "ops" / "redis-users.sh", "echo", "started"],
        env=os.environ | VARIABLES,
        capture_output=True,
        text=True,
        check=True,
    )
    assert started.stdout.startswith("started --user default on #")
    assert VARIABLES["RIVERDELTA_REDIS_PASSWORD"] not in started.stdout


@pytest.mark.parametrize("package", ["shared", "workers", "gateway", "ops/riverdelta_cli"])
def test_the_engine_is_sent_what_the_wheel_is_made_of(package: str) -> None:
    assert DOCKERIGNORE[1] == "*"
    assert f"!{package}/" in DOCKERIGNORE


def test_the_image_is_installed_from_locks_that_exist() -> None:
    locks = re.findall(r"--require-hashes -r (\S+)", DOCKERFILE)
    assert len(locks) == DOCKERFILE.count(" install ") - DOCKERFILE.count("--no-deps --no-index")
    assert all((CHECKOUT / lock).is_file() for lock in locks)


def test_the_image_runs_without_root_and_gets_the_signal() -> None:
    final = DOCKERFILE.rpartition("FROM ")[2]
    assert re.search(r"^USER \d+:\d+$", final, re.MULTILINE)
    assert re.search(r'^CMD \["', final, re.MULTILINE)
    assert "pip" not in final


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: Path(engine).name)
def test_the_server_takes_our_configuration(engine: str, tmp_path: Path) -> None:
    with (
        redis_server(engine, tmp_path, VARIABLES) as server,
        redis.Redis(
            port=server.port,
            password=VARIABLES["RIVERDELTA_REDIS_PASSWORD"],
            decode_responses=True,
        ) as client,
    ):
        settings = client.config_get("append*", "maxmemory-policy")
        users = client.acl_users()
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert set(users) == {"default", *ROLES.values(), "backend"}
