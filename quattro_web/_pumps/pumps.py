"""A collection of pumps, for the modules of a larger app to fill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, Unpack, overload

from quattro_web._pumps.pump import Pump, PumpFunction, PumpOptions, check_names, checked_pump

FunctionT = TypeVar("FunctionT", bound=PumpFunction)


class Pumps:
    """A collection of pumps, which decorators fill wherever the pumps are defined.

    ::

        pumps = Pumps()

        @pumps.pump(on_failure="restart")
        async def poll() -> None: ...

        install(app, pumps=pumps)

    The app runs every pump that is added before it starts up.

    Args:
        pumps: Async functions or `Pump` objects to begin with.

    .. versionadded:: 0.1
    """

    def __init__(self, pumps: Iterable[Pump | PumpFunction] = ()) -> None:
        if isinstance(pumps, Pump) or not isinstance(pumps, Iterable):
            msg = f"pumps must be a list of async functions, got {pumps!r}: write pumps=[...]"
            raise TypeError(msg)
        self._own: list[Pump] = []
        self._included: list[Pumps] = []
        self._is_frozen = False
        for pump in pumps:
            self.add(pump)

    def add(self, pump: Pump | PumpFunction) -> None:
        """Add a pump, or an async function as a pump.

        Raises:
            RuntimeError: If the app has already started: the pump would never run.
            TypeError: If it is not a function, or takes arguments that a pump does not get.
            ValueError: If the collection already has a pump of this name.

        .. versionadded:: 0.1
        """
        added = checked_pump(pump)
        self._check_open(added)
        check_names((*self, added))
        self._own.append(added)

    def include(self, pumps: Pumps) -> None:
        """Include another collection, and whatever is added to it later.

        Raises:
            RuntimeError: If the app has started up.
            TypeError: If it is not a collection.
            ValueError: If both have a pump of the same name, or if one already includes the other.

        .. versionadded:: 0.1
        """
        if not isinstance(pumps, Pumps):
            msg = f"include takes a Pumps collection, got {pumps!r}: add takes a pump"
            raise TypeError(msg)
        self._check_open(pumps)
        check_names((*self, *pumps))
        if self is pumps or pumps._includes(self):
            msg = f"{pumps!r} can't be included in itself"
            raise ValueError(msg)
        self._included.append(pumps)

    @overload
    def pump(self, function: FunctionT, /) -> FunctionT: ...

    @overload
    def pump(self, **options: Unpack[PumpOptions]) -> Callable[[FunctionT], FunctionT]: ...

    def pump(self, function: Any = None, /, **options: Any) -> Any:  # type: ignore[misc]
        """Add the decorated function as a pump: ``@pumps.pump``, or with the options of `Pump`.

        Returns the function itself.

        Raises:
            RuntimeError: If the app has already started: the pump would never run.
            TypeError: As `Pump` does.
            ValueError: As `Pump` does, and if the collection already has a pump of this name.

        .. versionadded:: 0.1
        """

        def add(function: FunctionT) -> FunctionT:
            self.add(Pump(function, **options))
            return function

        return add if function is None else add(function)

    def __iter__(self) -> Iterator[Pump]:
        yield from self._own
        for pumps in self._included:
            yield from pumps

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<Pumps {', '.join(pump.name for pump in self)}>"

    def _includes(self, pumps: Pumps) -> bool:
        """Return whether another collection is included in this one, directly or not."""
        return any(own is pumps or own._includes(pumps) for own in self._included)

    def _freeze(self) -> None:
        self._is_frozen = True
        for pumps in self._included:
            pumps._freeze()

    def _check_open(self, added: object) -> None:
        if self._is_frozen:
            msg = f"{added!r} comes too late, the app has started: import its module earlier"
            raise RuntimeError(msg)


def freeze(pumps: Pumps) -> tuple[Pump, ...]:
    """Return the pumps of a collection, which takes no more from now on: the app starts.

    Raises:
        ValueError: If two pumps of included collections have the same name.
    """
    check_names(pumps)
    pumps._freeze()
    return tuple(pumps)
