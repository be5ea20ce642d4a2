"""What may be a target, and what is in the file of targets."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from example_app.settings import ConfigurationError, Settings
from example_app.targets import MAX_TARGETS, Target, load_targets


@pytest.mark.parametrize("url", ["http://a.test", "https://a.test:8443/x?y=z", "http://[::1]:81/"])
def test_http_and_https_are_targets(url: str) -> None:
    """An ordinary address is taken as it is."""
    assert Target(name="a", url=url).url == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://a.test/", "only http and https"),
        ("file:///etc/passwd", "only http and https"),
        ("javascript:alert(1)", "only http and https"),
        ("//a.test/", "only http and https"),
        ("/healthz", "only http and https"),
        ("http:///path", "names no host"),
        ("http://user:secret@a.test/", "user name or password"),
        ("http://a.test:99999/", "1 to 65535"),
        ("http://a.test:0/", "1 to 65535"),
        ("http://a.test:x/", "not a URL"),
        ("http://a.test/\n", "not a URL"),
        ("http://\u2488test/", "not a URL"),
        ("http://a.test/" + "x" * 2000, "at most 2000"),
    ],
)
def test_other_urls_are_refused(url: str, reason: str) -> None:
    """What is no plain web address is refused, with the reason."""
    with pytest.raises(ValidationError, match=reason):
        Target(name="a", url=url)


@pytest.mark.parametrize("name", ["", "  ", "a/b", "a\nb", "a\x00", "..", "x" * 61])
def test_a_name_fits_into_a_line_and_a_path(name: str) -> None:
    """A name without a letter, with control characters or a slash, or too long, is refused."""
    with pytest.raises(ValidationError):
        Target(name=name, url="http://a.test/")


@pytest.mark.parametrize("seconds", [0, -1, 31, float("nan"), float("inf")])
def test_a_probe_has_a_bounded_deadline(seconds: float) -> None:
    """No target may keep a probe for longer than half a minute."""
    with pytest.raises(ValidationError):
        Target(name="a", url="http://a.test/", timeout=seconds)


def test_the_default_targets_need_no_internet() -> None:
    """What the board watches out of the box is served by the board itself."""
    targets = load_targets(Settings().targets, "http://127.0.0.1:8123")
    assert [target.url for target in targets] == [
        "http://127.0.0.1:8123/healthz",
        "http://127.0.0.1:8123/demo/slow",
        "http://127.0.0.1:8123/demo/flaky",
    ]


ONE = '[[target]]\nname = "a"\nurl = "http://a.test/"\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[target]", "Expected"),
        ("target = 1", "not iterable"),
        ("target = [1]", "attribute"),
        ('[[target]]\nname = "a"\n', "url"),
        ("[[target]]\nname = 'a'\nurl = 1", "valid string: url = 1"),
        (ONE + "timeuot = 3", "timeuot = 3"),
        (ONE + ONE, "the same name"),
        ("".join(ONE.replace('"a"', f'"{n}"') for n in range(MAX_TARGETS + 1)), "at most 100"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """The error names the file, and what is wrong with it."""
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"(?s)mine\.toml.*{reason}|{reason}.*mine\.toml"):
        load_targets(file, "http://127.0.0.1:8000")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that isn't there is an error, not an empty board."""
    with pytest.raises(ConfigurationError, match=r"none\.toml.*No such file"):
        load_targets(tmp_path / "none.toml", "http://127.0.0.1:8000")
