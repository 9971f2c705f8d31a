"""Reading ahead in a thread while the model computes: decoding and disks leave Python's lock free.

Predictions read ahead so (evaluation/predict.py); supervised training does in DataLoader workers (`dataloader_num_workers`).
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    items: Iterable[Item], function: Callable[[Item], Result], *, depth: int
) -> Generator[tuple[Item, "Future[Result]"]]:
    """(item, future of function(item)) in the order of the items; `depth` items ahead are being worked on, in one thread.

    `future.result()` waits, and raises what `function` raised for that very item; the others are not touched by it:

        for sample, prompt in prefetch(samples, encoder, depth=2):
            try: answer(sample, prompt.result())
            except VideoDecodeError as error: ...

    `function` is never called by two threads at once unless the caller does so. Leaving the loop drops what has not begun.
    """
    if depth < 1:
        raise ValueError(f"expected depth >= 1, got {depth}")
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > depth:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()
