"""The files for real servers agree with each other and with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


def load(name: str) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load((ROOT / name).read_text())


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = load("docker-compose.yml")["services"]
    return found


def test_every_server_of_the_design_is_there(services: dict[str, Any]) -> None:
    assert {"prefect", "worker", "postgres", "redis", "mlflow", "storage", "ray"} <= set(services)


def test_images_are_pinned(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if "image" in service:
            tag = service["image"].partition(":")[2]
            assert re.search(r"\d", tag), f"{name} has no pinned tag: {service['image']}"


def test_services_wait_only_for_services_that_exist_and_have_what_is_waited_for(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}"
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for the health of {other}, which has no check"


def test_the_worker_reports_to_the_servers_of_the_same_file(services: dict[str, Any]) -> None:
    environment = services["worker"]["environment"]
    for variable in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_S3_ENDPOINT_URL", "RAY_ADDRESS"):
        host = environment[variable].partition("://")[2].partition(":")[0]
        assert host in services, f"{variable} points to {host}"


def test_no_password_is_written_down(services: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for line in text.splitlines():
        if "PASSWORD:" in line or "SECRET" in line:
            assert "${" in line, line


def test_the_environment_example_names_every_variable_the_file_asks_for() -> None:
    asked = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    given = {line.partition("=")[0] for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line}
    assert asked == given


def test_the_schedule_is_the_same_served_and_deployed() -> None:
    (deployment,) = load("prefect.yaml")["deployments"]
    assert f'QUARTERLY = "{deployment["schedules"][0]["cron"]}"' in (ROOT / "flows" / "serve.py").read_text()
    path, _, function = deployment["entrypoint"].partition(":")
    assert re.search(rf"^def {function}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_the_lock_names_no_registry_and_suits_cpu_and_cuda() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+(\[[a-z,]+\])?==[\w.!-]+( ;.*)?", line) for line in lines)
    pins = dict(line.split("==") for line in lines if ";" not in line)
    assert pins["torch"] == "2.13.0"
    assert tuple(map(int, pins["fastapi"].split(".")[:2])) < (0, 143)
    assert tuple(map(int, pins["sqlalchemy"].split(".")[:2])) < (2, 1)
