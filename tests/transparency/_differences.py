"""Which tests pass without the middleware and fail with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.transparency._suites import Outcomes, Suite, file_of

# In the modes that open a group for every request: tests that see one, by design. A reason each.
EXPLAINED = {
    "tests/test_testclient.py::test_streaming_response_skips_empty_and_head_bodies": (
        "The pieces of a body that HEAD does not have are held back with its end, so that no slow "
        "client slows its generator down."
    ),
    "tests/test_testclient.py::test_streaming_response_is_available_before_first_chunk": (
        "the start of a response waits for its first chunk, so that a child's failure until then "
        "is still answered with its own status"
    ),
    "tests/test_dependency_after_yield_streaming.py::test_broken_session_stream_no_raise": (
        "a stream that fails before its first chunk is answered with a 500, not with a 200 that is "
        "cut: its start is still held back"
    ),
}


@dataclass
class Difference:
    """What the middleware has changed."""

    passed: int
    broken: list[str] = field(default_factory=list)  # pass without it, fail with it
    explained: list[str] = field(default_factory=list)  # so do these, and that is right
    unsteady: list[str] = field(default_factory=list)  # failed once, not twice
    also_plain: list[str] = field(default_factory=list)  # fail without it too


def compare(suite: Suite, mode: str, plain: Outcomes | None = None) -> Difference:
    """Run *suite* in *mode*, and what fails there a second time, and without the middleware."""
    outcomes = suite.run(mode)
    difference = Difference(sum(outcome == "passed" for outcome in outcomes.values()))
    suspects = failed(outcomes)
    if plain is not None:
        suspects += [test for test in passed(plain) if outcomes.get(test) in (None, "skipped")]
    if not suspects:
        return difference
    # Whole files: what a test leaves behind may fail the next one.
    files = sorted({file_of(test) for test in suspects})
    plain = plain or suite.run("plain", *files)
    difference.also_plain = [test for test in suspects if plain.get(test) != "passed"]
    suspects = [test for test in suspects if plain.get(test) == "passed"]
    if suspects:
        again = suite.run(mode, *sorted({file_of(test) for test in suspects}))
        for test in suspects:
            _sort_in(test, again, mode, difference)
        new = [test for test in failed(again) if plain.get(test) == "passed"]
        difference.broken += [test for test in new if test not in suspects]
    return difference


def _sort_in(test: str, again: Outcomes, mode: str, difference: Difference) -> None:
    if again.get(test) == "passed":
        difference.unsteady.append(test)
    elif mode.startswith("opened-") and _reason(test):
        difference.explained.append(f"{test}: {_reason(test)}")
    else:
        difference.broken.append(test)


def _reason(test: str) -> str | None:
    return next((reason for start, reason in EXPLAINED.items() if test.startswith(start)), None)


def passed(outcomes: Outcomes) -> list[str]:
    return [test for test, outcome in outcomes.items() if outcome == "passed"]


def failed(outcomes: Outcomes) -> list[str]:
    return [test for test, outcome in outcomes.items() if outcome not in ("passed", "skipped")]
