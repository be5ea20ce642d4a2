"""The files of other programs that the pages show: they can be read, and they leave enough time."""

import configparser
import json
import re
import tomllib
from typing import Any, cast

import pytest
import yaml  # type: ignore[import-untyped]

from quattro_web import ShutdownGrace
from tests.docs.pages import Block, blocks_in, id_of

GRACE = cast("float", ShutdownGrace().total)

DOCKER = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "EXPOSE", "USER", "STOPSIGNAL", "CMD"}


def named(block: Block) -> str:
    return f"{id_of(block.page)}:{block.line}"


@pytest.mark.parametrize("block", blocks_in("yaml"), ids=named)
def test_yaml_waits_for_the_shutdown(block: Block) -> None:
    """What stops a container kills it after the shutdown's own bound, and asks what there is."""
    document: dict[str, Any] = yaml.safe_load(block.text)
    if document.get("kind") == "Deployment":
        check_deployment(document["spec"])
    else:
        check_compose(document)


def check_deployment(spec: dict[str, Any]) -> None:
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > before + GRACE
    assert container["startupProbe"]["httpGet"]["path"] == "/livez"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


def check_compose(document: dict[str, Any]) -> None:
    for service in document["services"].values():
        assert int(service["stop_grace_period"].removesuffix("s")) > GRACE


@pytest.mark.parametrize("block", blocks_in("ini"), ids=named)
def test_systemd_waits_for_the_shutdown(block: Block) -> None:
    """A unit of systemd is one, restarts whatever ends, and kills after the shutdown's bound."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block.text)
    service = unit["Service"]
    assert int(service["TimeoutStopSec"]) > GRACE
    assert service["Restart"] == "always"


@pytest.mark.parametrize("block", blocks_in("dockerfile"), ids=named)
def test_image_passes_signals_on(block: Block) -> None:
    """An image runs the server itself, not a shell that would keep the signal to itself."""
    lines = block.text.replace("\\\n", " ").splitlines()
    words = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {word for word, _ in words} <= DOCKER
    assert words[0][0] == "FROM"
    [command] = [json.loads(text) for word, text in words if word == "CMD"]
    assert re.fullmatch(r"uvicorn|gunicorn|hypercorn|granian", command[0])


@pytest.mark.parametrize("block", blocks_in("toml"), ids=named)
def test_options_of_pytest_exist(block: Block, pytestconfig: pytest.Config) -> None:
    """The options of pytest that a page sets are known, and of that type."""
    options = tomllib.loads(block.text)["tool"]["pytest"]["ini_options"]
    for name, value in options.items():
        assert type(pytestconfig.getini(name)) is type(value)
