"""The badge of a target: what it says, and where it may be shown."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from pydantic import ValidationError

from example_app.badge import badge_of
from example_app.settings import ConfigurationError, Settings
from example_app.status import Status
from example_app.targets import Target
from tests.example_app.support import running

pytestmark = pytest.mark.anyio

Answers = dict[str, int | Exception]

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (Status(state="up"), "up"),
        (Status(state="slow"), "slow"),
        (Status(state="failing", failed=2), "failing 2 of 3"),
        (Status(state="down", failed=3), "down"),
        (Status(state="paused", failed=1), "paused"),
        (Status(state="none"), "not checked yet"),
    ],
)
def test_what_it_says(status: Status, said: str) -> None:
    """O3: A badge says the name, as text whatever it is, and the state in words."""
    name = "<script>&\"'"
    picture = ET.fromstring(badge_of(Target(name=name, url="http://a.test/"), status))
    assert picture.findtext(f"{SVG}title") == f"{name}: {said}"
    assert [each.text for each in picture.iter(f"{SVG}text")] == [name, said]
    assert {each.tag.removeprefix(SVG) for each in picture.iter()} == {
        "svg", "title", "rect", "g", "text",
    }  # fmt: skip


@pytest.mark.parametrize(("public", "where"), [(False, "same-origin"), (True, "cross-origin")])
async def test_where_it_is_shown(
    settings: Settings, web: Answers, public: bool, where: str
) -> None:
    """Browsers show it on no page elsewhere, unless badges are public; it needs no token, as the
    page does not, runs nothing, and is for names of the board alone."""
    settings = replace(settings, token="secret", public_badges=public)
    async with running(settings) as app:
        response = await app.client.get("/targets/a/badge.svg")
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "image/svg+xml"
        assert response.headers["Content-Security-Policy"] == "default-src 'none'"
        assert response.headers["Cross-Origin-Resource-Policy"] == where
        assert "a.test" not in response.text
        assert (await app.client.get("/targets/c/badge.svg")).status_code == 404
    async with running(settings, host="evil.test") as app:
        assert (await app.client.get("/targets/a/badge.svg")).status_code == 400


def test_what_is_neither_yes_nor_no() -> None:
    """The setting is 0 or 1."""
    assert not Settings.from_environment({"BOARD_PUBLIC_BADGES": "0"}).public_badges
    with pytest.raises(ConfigurationError, match="BOARD_PUBLIC_BADGES must be a number from 0 to"):
        Settings.from_environment({"BOARD_PUBLIC_BADGES": "yes"})


async def test_targets_of_a_group(settings: Settings, web: Answers) -> None:
    """The targets of one group can be asked for."""
    async with running(settings) as app:
        await app.client.put("/targets/b", json={"url": "http://b.test/", "group": " Web "})
        for group, names in (("Web", ["b"]), ("", ["a"]), ("none", [])):
            found = (await app.client.get("/targets", params={"group": group})).json()
            assert [each["target"]["name"] for each in found] == names


@pytest.mark.parametrize("group", ["a\nb", "x" * 41])
def test_a_group_fits_into_a_line(group: str) -> None:
    """A group is a short line of text."""
    with pytest.raises(ValidationError):
        Target(name="a", url="http://a.test/", group=group)
