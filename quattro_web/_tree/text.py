"""A snapshot as lines of text, for the log and for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from quattro_web._util.escaping import escaped

# Seconds after which a task that awaits the same thing is marked. A pump may do so for a day.
STILL = 10.0

# How many children of one task are shown that wait for their turn.
MOST_WAITING = 3

_AS_JSON = Mapping[str, Any]


class Mark(Enum):
    """What is to be seen at a glance."""

    NONE = ""
    HEADING = "heading"
    UNMOVED = "unmoved"
    """It has awaited the same thing for a while."""
    LATE = "late"
    """Its deadline has passed, or it was cancelled and goes on, or it should run and does not."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line, and how it is shown."""

    text: str
    mark: Mark = Mark.NONE


def blocks_of(tasks: _AS_JSON) -> Iterator[list[Line]]:
    """Yield what a snapshot says, a block for each pump, request and the like, as `as_dict` has it.

    All that clients have chosen is escaped.
    """
    yield [_summary(tasks)]
    for lifespan in tasks["lifespans"]:
        yield list(_lifespan(lifespan))
    for pump in tasks["pumps"]:
        yield [_pump(pump), *_below(pump["task"])]
    for work in tasks["handed_over"]:
        text = f"handed over by {work['origin']} {_seconds(work['age'])} ago: {_own(work['task'])}"
        yield [Line(text, _mark(work["task"])), *_children(work["task"], "")]
    for job in tasks["jobs"]:
        text = f"job {escaped(job['job'])} from {escaped(job['origin'])}"
        text += f", attempt {job['attempt']}, for {_seconds(job['age'])}: {_own(job['task'])}"
        yield [Line(text, _mark(job["task"])), *_children(job["task"], "")]
    for request in tasks["requests"]:
        yield list(_request(request))
    for task in tasks["others"]:
        yield [Line(f"another task: {_own(task)}", _mark(task)), *_children(task, "")]
    left_out = [
        f"{tasks[key]} more {what}"
        for key, what in (("requests_left_out", "requests"), ("tasks_left_out", "tasks"))
        if tasks[key]
    ]
    if left_out:
        yield [Line(f"and {' and '.join(left_out)}")]


def _summary(tasks: _AS_JSON) -> Line:
    ending = ", shutting down" if tasks["is_shutting_down"] else ""
    text = (
        f"process {tasks['pid']} ({escaped(tasks['process'])}){ending}: "
        f"{tasks['open_requests']} open requests, {tasks['tasks']} tasks, at {tasks['at']}"
    )
    return Line(text, Mark.HEADING)


def _lifespan(lifespan: _AS_JSON) -> Iterator[Line]:
    text, task = f"{lifespan['phase']} for {_seconds(lifespan['age'])}: ", lifespan["task"]
    if task is None:
        yield Line(f"{text}waiting for its pumps")
    else:
        yield Line(f"{text}{_own(task)}", _mark(task))
        yield from _children(task, "")


def _pump(pump: _AS_JSON) -> Line:
    text = f"pump {escaped(pump['name'])}: {pump['state']} since {pump['since']}"
    if pump["next_run"]:
        text += f", next at {pump['next_run']}"
    if pump["restarts"]:
        text += f", restarted {pump['restarts']} times"
    if pump["lock"]:
        text += f", once by {escaped(pump['lock'])}"
    if pump["holder"]:
        text += f", held by {escaped(pump['holder'])}"
    return Line(text, Mark.NONE if pump["is_up"] else Mark.LATE)


def _request(request: _AS_JSON) -> Iterator[Line]:
    path, route = escaped(request["path"].replace(" ", "%20")), request["route"]
    text = f"{escaped(request['method'])} {path}"
    if route is not None and route != request["path"]:
        text += f" ({escaped(route)})"
    if request["client"]:
        text += f" from {escaped(request['client'])}"
    text += f": {request['phase']}"
    if request["cancel_reason"]:
        text += f", because {request['cancel_reason']}"
    text += f", arrived {_seconds(request['age'])} ago"
    left = request["deadline_left"]
    if left is not None and not request["cancel_reason"]:
        text += (
            f", {_seconds(left)} until its deadline" if left > 0 else ", its deadline has passed"
        )
    is_late = left is not None and left <= 0
    yield Line(text, Mark.LATE if is_late or request["cancel_reason"] else Mark.NONE)
    yield from _below(request["handler"])


def _below(task: _AS_JSON | None) -> Iterator[Line]:
    if task is not None:
        yield Line(f"   {_own(task)}", _mark(task))
        yield from _children(task, "   ")


def _children(task: _AS_JSON, indent: str) -> Iterator[Line]:
    children: Sequence[_AS_JSON] = task["children"]
    waiting = [child for child in children if child["state"] == "waiting"]
    # They have nothing to say, and may be a thousand.
    more = len(waiting) - MOST_WAITING
    if more > 0:
        hidden = {child["id"] for child in waiting[MOST_WAITING:]}
        children = [child for child in children if child["id"] not in hidden]
    for number, child in enumerate(children, start=1):
        is_last = number == len(children) and more <= 0
        yield Line(f"{indent}{'└─' if is_last else '├─'} {_own(child)}", _mark(child))
        yield from _children(child, f"{indent}{'   ' if is_last else '│  '}")
    if more > 0:
        yield Line(f"{indent}└─ and {more} more waiting for their turn")


def _own(task: _AS_JSON) -> str:
    text = escaped(task["function"] or task["name"])
    if task["name"] not in {task["function"], ""}:
        text += f" [{escaped(task['name'])}]"
    if task["kind"] == "background":
        text += " in the background"
    if task["state"] == "waiting":
        return f"{text}, waiting for its turn"
    if task["state"] == "cancelling":
        text += ", cancelled"
    place = task["place"]
    if place is not None:
        text += f", at {escaped(place['function'])}, {escaped(place['file'])}:{place['line']}"
    if task["awaits"]:
        text += f", awaits {escaped(task['awaits'])}"
    unmoved = task["unmoved"]
    if unmoved is not None and unmoved >= STILL:
        text += f", unmoved for {_seconds(unmoved)}"
    return text


def _mark(task: _AS_JSON) -> Mark:
    if task["state"] == "cancelling":
        return Mark.LATE
    unmoved = task["unmoved"]
    return Mark.UNMOVED if unmoved is not None and unmoved >= STILL else Mark.NONE


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"
