"""The actors of a run: groups of sources go to whoever is free, and those of one that dies to another."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from perception.engine.errors import UserError
from perception.inference.engines.cluster import Needs, places, why
from perception.inference.engines.member import Finished, Member, Ran, Shard, Told, Worker
from perception.inference.loops import Outcome
from perception.inference.scan import Source

# A group on which so many actors died is left out.
_DEATHS = 3
# Seconds between looks at the cluster while no actor answers.
_LOOK = 10.0


@dataclass
class Task:
    """A group of sources that is to be run, and how many actors have died on it."""

    sources: Sequence[Source]
    deaths: int = 0
    left: int = 0


@dataclass
class _Hand:
    """An actor as the driver sees it: its call that is under way, and what it has to do."""

    number: int
    handle: Any
    call: Any
    starting: bool = True
    acknowledged: int = 0
    tasks: dict[int, Task] = field(default_factory=dict)


class Crew:
    """Starts actors, and others when they die.

    Args:
        ray: connected.
        count: actors.
        needs: of each.
        make: makes the worker of an actor, from the actor's number.
        shared: a reference to what all workers get alike.
        window: sources that an actor should have at hand beyond those that are under way.
        units: what sources are called.
        buried: is told the number of an actor that has died.
    """

    def __init__(
        self,
        ray: ModuleType,
        count: int,
        needs: Needs,
        make: Callable[[int], Callable[[Any], Worker]],
        shared: Any,
        window: int,
        units: str,
        buried: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._ray, self._count, self._needs = ray, count, needs
        self._make, self._shared, self._window, self._units, self._buried = make, shared, window, units, buried
        self._actor = ray.remote(Member)
        self._hands: list[_Hand] = []
        self._numbers = itertools.count()
        self._fruitless = 0
        self._waiting: deque[Task] = deque()

    def start(self, groups: int, wait_for: int = 1) -> None:
        """Starts actors, no more than there are groups, and waits for the first of them.

        Args:
            groups: that there are.
            wait_for: how many actors.

        Raises:
            UserError: they cannot do the work.
        """
        self._staff(groups)
        while sum(not hand.starting for hand in self._hands) < min(wait_for, groups, self._count):
            for _ in self._answers():
                pass
            self._staff(groups)

    def outcomes(
        self,
        groups: Sequence[Sequence[Source]],
        records: Callable[[Sequence[Source]], dict[str, Any]],
        left: Callable[[Sequence[Source]], list[Sequence[Source]]],
    ) -> Iterator[Outcome | Told]:
        """Runs groups and yields what comes of their sources, in any order; what has been yielded is dealt with when
        the next is asked for.

        Args:
            groups: of sources.
            records: of those of a group that are done.
            left: what of a group is to be run after its actor has died.

        Raises:
            UserError: a worker's, or all actors die.
        """
        self._waiting = deque(map(Task, groups))
        while self._waiting or any(hand.tasks for hand in self._hands):
            self._staff(len(self._waiting))
            for hand in self._hands:
                if hand.call is None:
                    shards = list(self._fed(hand, records))
                    if shards or hand.tasks:
                        hand.call = hand.handle.exchange.remote(shards, hand.acknowledged)
            for hand, events in self._answers():
                if isinstance(events, BaseException):
                    yield from self._again(hand, events, records, left)
                    continue
                for event in events:
                    if isinstance(event, Finished):
                        del hand.tasks[event.shard]
                    elif isinstance(event, Ran):
                        self._fruitless = 0
                        task = hand.tasks[event.shard]
                        task.left -= 1
                        yield Outcome(task.sources[event.place], event.record, event.reason)
                    else:
                        yield event
                    hand.acknowledged += 1

    def close(self) -> None:
        """Ends the actors."""
        for hand in self._hands:
            self._ray.kill(hand.handle)
        self._hands = []

    def _staff(self, groups: int) -> None:
        """Starts actors that are missing and would have something to do."""
        idle = sum(not hand.tasks for hand in self._hands)
        for _ in range(min(self._count - len(self._hands), groups - idle)):
            number = next(self._numbers)
            options = dict(num_cpus=self._needs.cpus, num_gpus=self._needs.gpus, max_restarts=0, max_task_retries=0)
            handle = self._actor.options(**options, scheduling_strategy="SPREAD").remote(
                self._make(number), self._shared
            )
            self._hands.append(_Hand(number, handle, handle.start.remote()))

    def _fed(self, hand: _Hand, records: Callable[[Sequence[Source]], dict[str, Any]]) -> Iterator[Shard]:
        """What an actor is to do next; the last groups are left to those that have none."""
        while self._waiting and sum(task.left for task in hand.tasks.values()) < self._window:
            idle = sum(not other.tasks for other in self._hands if other is not hand)
            if hand.tasks and len(self._waiting) <= idle:
                return
            task, number = self._waiting.popleft(), next(self._numbers)
            task.left = len(task.sources)
            hand.tasks[number] = task
            yield Shard(number, task.sources, records(task.sources))

    def _answers(self) -> Iterator[tuple[_Hand, Any]]:
        """Events of actors that have some, or the error with which one has died."""
        calls = {hand.call: hand for hand in self._hands if hand.call is not None}
        if not self._ray.wait(list(calls), num_returns=1, timeout=_LOOK)[0]:
            places(self._ray, self._needs)
            return
        for call in self._ray.wait(list(calls), num_returns=len(calls), timeout=0)[0]:
            hand = calls[call]
            hand.call = None
            try:
                answer = self._ray.get(call)
            except self._ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, UserError) else error) from error
            except self._ray.exceptions.RayError as error:
                self._bury(hand, error)
                yield hand, error
                continue
            if hand.starting:
                hand.starting = False
            else:
                yield hand, answer

    def _bury(self, hand: _Hand, error: BaseException) -> None:
        self._hands.remove(hand)
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(hand.handle)
        self._buried(hand.number)
        self._fruitless += 1
        if self._fruitless > _DEATHS + self._count:
            raise UserError(f"actors die one after the other, the last because {why(error)}")

    def _again(
        self,
        hand: _Hand,
        error: BaseException,
        records: Callable[[Sequence[Source]], dict[str, Any]],
        left: Callable[[Sequence[Source]], list[Sequence[Source]]],
    ) -> Iterator[Outcome | Told]:
        """Puts what a dead actor had to do first in the queue, or gives it up."""
        count = 0
        for first, task in reversed(list(zip(itertools.chain([True], itertools.repeat(False)), hand.tasks.values()))):
            # Those behind the first had hardly begun.
            deaths = task.deaths + first
            for group in reversed(left(task.sources)):
                done = records(group)
                missing = [source for source in group if source.name not in done]
                if deaths < _DEATHS:
                    self._waiting.appendleft(Task(group, deaths))
                    count += len(missing)
                else:
                    reason = f"{deaths} processes died while they ran it or {self._units} beside it ({why(error)})"
                    yield from (Outcome(source, reason=reason) for source in missing)
        if count:
            yield Told("say", (f"an actor died because {why(error)}; {count} {self._units} are run again",))
