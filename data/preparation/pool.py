"""Parallel processes for work on files that nobody vouches for: one that kills its process costs no other one."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class SturdyPool:
    """Processes, started with the first work. For use in a `with`."""

    def __init__(self, num_processes: int) -> None:
        self._num_processes = num_processes
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> "SturdyPool":
        return self

    def __exit__(self, *error: object) -> None:
        self._drop()

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, if_died: Callable[[Item], Result]
    ) -> Iterator[Result]:
        """Results in order.

        When a process dies (a decoder crashes, the system kills it), the work of all of them is lost and nobody says
        whose fault it was. What has no result yet is then done one at a time, in one process; an item of which that
        one dies too gives `if_died(item)`. Raises BrokenProcessPool where a process dies without any work.
        """
        num_done = 0
        try:
            self._executor = self._executor or _executor(self._num_processes)
            for result in self._executor.map(function, items):
                num_done += 1
                yield result
        except BrokenProcessPool:
            self._drop()
            for item in items[num_done:]:
                yield self._alone(function, item, if_died)
            self._drop()

    def _alone(self, function: Callable[[Item], Result], item: Item, if_died: Callable[[Item], Result]) -> Result:
        if self._executor is None:
            self._executor = _executor(1)
            self._executor.submit(os.getpid).result()
        try:
            return self._executor.submit(function, item).result()
        except BrokenProcessPool:
            self._drop()
            return if_died(item)

    def _drop(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(cancel_futures=True)


def _executor(num_processes: int) -> ProcessPoolExecutor:
    # Spawned, not forked: a fork of a process whose threads hold locks hangs.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(num_processes, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
