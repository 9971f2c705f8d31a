"""Things measured in turn: each once before any comes again, so that what else the machine does falls on all alike; and shown."""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def median_seconds(parts: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each part over `repeats` rounds; one more round before them warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(repeats + 1):
        for name, run in parts.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(result: Mapping[str, Any], *, as_json: bool) -> None:
    """One line of JSON, or a line for each value."""
    width = max(map(len, result))
    lines = [json.dumps(result)] if as_json else [f"{name:{width}} {value}" for name, value in result.items()]
    sys.stdout.write("\n".join(lines) + "\n")
