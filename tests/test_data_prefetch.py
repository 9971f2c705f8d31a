"""Reading ahead: results in order, errors at their own item, no further ahead than asked."""

import threading

import pytest

from data.prefetch import prefetch


def test_results_come_in_order() -> None:
    results = [(item, future.result()) for item, future in prefetch(range(5), lambda item: item * item, depth=2)]
    assert results == [(0, 0), (1, 1), (2, 4), (3, 9), (4, 16)]


def test_no_item_beyond_the_depth_is_begun() -> None:
    """With depth 1, the item after the one at hand and none beyond it, up to one that fails."""
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise RuntimeError("item 3")
        return 10 * item

    seen = []
    with pytest.raises(RuntimeError, match="item 3"):
        for item, future in prefetch([0, 1, 2, 3, 4], work, depth=1):
            seen.append((item, future.result()))
            assert max(begun) <= item + 1
    assert seen == [(0, 0), (1, 10), (2, 20)]


def test_an_error_is_raised_at_its_item_and_the_others_are_there() -> None:
    """1 / 0 fails; items before and behind it do not."""
    outcomes = []
    for item, future in prefetch([4, 0, 2], lambda item: 8 // item, depth=2):
        try:
            outcomes.append(future.result())
        except ZeroDivisionError:
            outcomes.append(f"failed at {item}")
    assert outcomes == [2, "failed at 0", 4]


def test_works_on_the_next_items_while_one_is_used() -> None:
    """With depth 2, items 1 and 2 begin while item 0 is held, and item 3 does not."""
    begun = {item: threading.Event() for item in range(4)}
    ahead = prefetch(range(4), lambda item: begun[item].set(), depth=2)
    next(ahead)[1].result()
    assert begun[1].wait(10) and begun[2].wait(10)
    assert not begun[3].is_set()
    ahead.close()


def test_leaving_the_loop_drops_what_has_not_begun() -> None:
    """Item 1 is being worked on when the loop is left; item 2 waits behind it and is never begun."""
    release, working, begun = threading.Event(), threading.Event(), []

    def work(item: int) -> None:
        begun.append(item)
        if item == 1:
            working.set()
            assert release.wait(10)

    ahead = prefetch(range(4), work, depth=2)
    next(ahead)
    assert working.wait(10)
    threading.Timer(0.1, release.set).start()
    ahead.close()
    assert begun == [0, 1]


def test_no_items_and_fewer_items_than_the_depth() -> None:
    assert list(prefetch([], str, depth=3)) == []
    assert [future.result() for _, future in prefetch([7], str, depth=3)] == ["7"]


def test_depth_has_to_be_positive() -> None:
    with pytest.raises(ValueError, match="expected depth >= 1, got 0"):
        next(prefetch([1], str, depth=0))
