"""What holds for every group, whatever its children do: random trees on the virtual clock."""

from __future__ import annotations

import os
import warnings

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.core.conftest import LOOPS, Run
from tests.core.trees import Ask, Fail, Node, Plan, Play, Sleep, Stop

# hypothesis warns of its own call on Python 3.14, in whichever test is the first that draws.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random`")

EXAMPLES = int(os.environ.get("TREES", "60"))
"""How many trees are drawn for each loop; more of them in the environment's TREES."""

sleeps = st.builds(Sleep, st.integers(0, 3))
cancel_styles = st.sampled_from(["obey", "swallow", "raise", "slow", "spawn", "spawn pump"])
# One in a few actions fails or stops the group: else nearly every tree would die young.
simple = st.one_of(sleeps, sleeps, sleeps, st.builds(Fail), st.builds(Stop))
plain = st.one_of(sleeps, st.builds(Ask))


def nodes(actions: st.SearchStrategy[object], *, failing: bool) -> st.SearchStrategy[object]:
    """Draw children that do what is drawn from *actions*."""
    on_cancel = cancel_styles if failing else cancel_styles.filter(lambda style: style != "raise")
    lists = st.lists(actions, max_size=4).map(tuple)
    foreground = st.builds(
        Node,
        background=st.just(value=False),
        function=st.booleans(),
        actions=lists,
        on_cancel=on_cancel,
    )
    background = st.builds(
        Node,
        background=st.just(value=True),
        function=st.booleans(),
        actions=lists.map(lambda drawn: tuple(one for one in drawn if one != Ask())),
        on_cancel=on_cancel,
    )
    return st.one_of(foreground, foreground, background)


def bodies(*, failing: bool) -> st.SearchStrategy[object]:
    """Draw what a body does: a list of actions, children among them, in a tree."""
    leaves = st.one_of(plain, plain, simple) if failing else plain

    def branch(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
        return nodes(st.one_of(leaves, inner), failing=failing)

    tree = st.recursive(branch(leaves), branch, max_leaves=8)
    return st.lists(st.one_of(tree, tree, leaves), max_size=6).map(tuple)


limits = st.one_of(st.none(), st.integers(1, 3))
moments = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=3).map(tuple)
plans = st.builds(Plan, limit=limits, body=bodies(failing=True), outer=moments)
quiet_plans = st.builds(Plan, limit=limits, body=bodies(failing=False), outer=st.just(()))

trees = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
loops = pytest.mark.parametrize("loop", [name for name in LOOPS if name != "uvloop"])


def play(plan: Plan, loop: str) -> Play:
    """Play the plan, and check what must hold for every one."""
    run, course = Run(LOOPS[loop]), Play(plan)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parent = run(course.run)  # a hang is a DeadlockError here
    assert not caught, [str(warning.message) for warning in caught]
    assert not run.left
    assert not run.reports
    assert not course.problems
    errors = [] if course.caught is None else list(course.caught.exceptions)  # type: ignore[attr-defined]
    assert set(errors) == set(course.raised)
    assert len(errors) == len(course.raised)
    assert parent.cancelled() == bool(course.outer_cancels)
    assert parent.cancelling() == course.outer_cancels
    assert course.started == sorted(course.started)
    assert course.most <= (plan.limit or course.most)
    for reason in set(course.reasons):
        event(reason)
    return course


@loops
@trees
@given(plan=plans)
def test_any_tree(loop: str, plan: Plan) -> None:
    """C5: whatever the children do and whenever it is cancelled, a group keeps its promises.

    It ends; no task of it is alive; no coroutine is left unawaited; every error is in its group;
    no clean-up is cut short; background tasks outlive the children that need them; children start
    in order and never more than the limit at once; no cancellation is lost, none is made up.
    """
    play(plan, loop)


@loops
@trees
@given(plan=quiet_plans)
def test_any_tree_without_a_failure(loop: str, plan: Plan) -> None:
    """C3: where nothing fails, every foreground child runs to its end, and none is cancelled."""
    course = play(plan, loop)
    assert not course.reasons
    foreground = sum(not task.cancelled() for task in course.tasks)
    assert foreground >= len(course.started)
    assert not course.foreground
