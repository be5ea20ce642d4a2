"""Random trees of children, played on a group, and the log that is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

from quattro_core import TaskGroup

OnCancel = Literal["obey", "swallow", "raise", "slow", "spawn", "spawn pump"]


@dataclass(frozen=True)
class Sleep:
    """Sleep for some virtual seconds; 0 is one turn of the event loop."""

    seconds: int


@dataclass(frozen=True)
class Ask:
    """Ask the pump of the group something and wait for the answer; only foreground children may."""


@dataclass(frozen=True)
class Fail:
    """Raise an error."""


@dataclass(frozen=True)
class Stop:
    """Call `cancel` of the group."""


@dataclass(frozen=True)
class Node:
    """A child, and what it does."""

    background: bool
    function: bool
    actions: tuple[Sleep | Ask | Fail | Stop | Node, ...]
    on_cancel: OnCancel


@dataclass(frozen=True)
class Plan:
    """A whole group: its limit, its body, and when it is cancelled from outside."""

    limit: int | None
    body: tuple[Sleep | Ask | Fail | Stop | Node, ...]
    outer: tuple[tuple[int, int], ...]
    """For each outer cancellation, the virtual seconds and the turns after which it comes."""


class TreeError(Exception):
    """What children raise."""


@dataclass
class Play:
    """The course of one group."""

    plan: Plan
    created: int = 0
    ended: bool = False
    dismissed: bool = False
    started: list[int] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    foreground: set[int] = field(default_factory=set)
    most: int = 0
    raised: list[BaseException] = field(default_factory=list)
    caught: BaseException | None = None
    reasons: list[str] = field(default_factory=list)
    """Why the group was aborted, if it was."""
    problems: list[str] = field(default_factory=list)
    outer_cancels: int = 0

    async def run(self) -> asyncio.Task[None]:
        """Play it to its end and return the task that it was played in."""
        parent = asyncio.create_task(self.parent())
        canceller = asyncio.create_task(self.cancel_from_outside(parent))
        await asyncio.wait((parent,))
        canceller.cancel()
        await asyncio.wait((canceller,))
        return parent

    async def cancel_from_outside(self, parent: asyncio.Task[None]) -> None:
        for seconds, turns in self.plan.outer:
            await asyncio.sleep(seconds)
            for _ in range(turns):
                await asyncio.sleep(0)
            if not self.ended and parent.cancel():
                self.outer_cancels += 1
                self.reasons.append("outer")

    async def parent(self) -> None:
        self.questions: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        try:
            async with TaskGroup(concurrency_limit=self.plan.limit) as tg:
                self.tg = tg
                self.tasks.append(tg.create_background_task(self.pump()))
                await self.act(self.plan.body)
        except BaseExceptionGroup as group:
            self.caught = group
        finally:
            self.ended = True
            alive = [task for task in self.tasks if not task.done()]
            self.problems += [f"{task} is alive" for task in alive]
        await asyncio.sleep(0)  # an outer cancellation that met errors arrives here

    async def pump(self) -> None:
        try:
            while True:
                answer = await self.questions.get()
                await asyncio.sleep(0)
                if not answer.done():
                    answer.set_result(None)
        except asyncio.CancelledError:
            self.check_order()
            raise

    def check_order(self) -> None:
        """Check, when the first background task is cancelled, that there is a reason for it.

        The others are cancelled with it, but may only learn of it when the first one, in its
        clean-up, has already made new children.
        """
        if self.dismissed:
            return
        self.dismissed = True
        waiting = [task for task in self.tasks if "wait_for=<Turn waiting" in repr(task)]
        if not self.reasons and (self.foreground or waiting):
            self.problems.append("a background task was cancelled while children needed it")

    def fail(self) -> None:
        error = TreeError(len(self.raised))
        self.raised.append(error)
        self.reasons.append("error")
        raise error

    async def act(self, actions: tuple[Sleep | Ask | Fail | Stop | Node, ...]) -> None:
        for action in actions:
            match action:
                case Sleep(seconds):
                    await asyncio.sleep(seconds)
                case Ask():
                    answer = asyncio.get_running_loop().create_future()
                    self.questions.put_nowait(answer)
                    await answer
                case Fail():
                    self.fail()
                case Stop():
                    self.reasons.append("cancel")
                    self.tg.cancel()
                case Node():
                    self.spawn(action)

    def spawn(self, node: Node) -> None:
        key, self.created = self.created, self.created + 1
        create = self.tg.create_background_task if node.background else self.tg.create_task
        child: Callable[[], Coroutine[Any, Any, None]] = lambda: self.child(key, node)  # noqa: E731  # typed
        offered = child if node.function else child()
        try:
            self.tasks.append(create(offered))
        except RuntimeError:
            if not self.reasons:
                self.problems.append(f"child {key} was refused")
            if not node.function:
                offered.close()  # type: ignore[union-attr]

    async def child(self, key: int, node: Node) -> None:
        if not node.background:
            self.started.append(key)
            self.foreground.add(key)
            self.most = max(self.most, len(self.foreground))
        try:
            await self.act(node.actions)
            if node.background:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            if node.background:
                self.check_order()
            elif not self.reasons:
                self.problems.append(f"child {key} was cancelled without a reason")
            await self.clean_up(key, node)
        finally:
            self.foreground.discard(key)

    async def clean_up(self, key: int, node: Node) -> None:
        try:
            match node.on_cancel:
                case "raise":
                    await asyncio.sleep(0)
                    self.fail()
                case "slow" | "swallow":
                    await asyncio.sleep(3)
                case "spawn" | "spawn pump":
                    pump = node.on_cancel == "spawn pump"
                    self.spawn(Node(pump, key % 2 == 0, (Sleep(1),), "obey"))
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.problems.append(f"the clean-up of child {key} was cut short")
            raise
        if node.on_cancel != "swallow":
            raise asyncio.CancelledError
