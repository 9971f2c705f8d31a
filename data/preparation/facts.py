"""What the report says about a split beyond its samples: rejected records, flags, and what its videos gave."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data.annotations import AnnotationError, FieldError, Split
from data.preparation.videos import Finding
from data.probing import disagreement, on_clock_of
from data.types import GroundingSample


def settle(
    samples: Sequence[GroundingSample], found: Mapping[str, Finding]
) -> tuple[list[GroundingSample], list[dict[str, Any]]]:
    """Put samples on the clock of their videos where these could be read, and list what is wrong with a video.

    Every sample is kept: without its video it can still be scored. -> samples, problems with the ids they concern.
    """
    settled: list[GroundingSample] = []
    problems: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for sample in samples:
        sample, problem = _settle_one(sample, found.get(sample.video_path))
        settled.append(sample)
        if problem is not None:
            problems[(sample.video_path, *problem)].append(sample.sample_id)
    rows = [
        {"video": video, "problem": problem, "cause": cause, "samples": ids}
        for (video, problem, cause), ids in problems.items()
    ]
    return settled, rows


def _settle_one(sample: GroundingSample, finding: Finding | None) -> tuple[GroundingSample, tuple[str, str] | None]:
    """-> the sample, kind and cause of a problem with its video."""
    if finding is None:
        return sample, None
    bad = (finding.problem, finding.cause) if finding.problem is not None else None
    if finding.info is None:
        return sample, bad
    if sample.is_probed:
        cause = disagreement(sample, finding.info)
        return sample, bad if cause is None else ("disagrees", cause)
    try:
        return on_clock_of(sample, finding.info), bad
    except FieldError as error:
        return sample, ("disagrees", f"the {error.field} {error.cause}")


def split_facts(read: Split, found: Mapping[str, Finding], problems: list[dict[str, Any]]) -> dict[str, Any]:
    """As JSON. `videos.looked_at` is 0 where nobody asked for a look."""
    return {
        "records": read.num_records,
        "rejected": [_rejected(error) for error in read.rejected],
        "flags": {flag: list(ids) for flag, ids in sorted(read.flags.items())},
        "videos": {
            "distinct": len({sample.video_path for sample in read.samples}),
            "looked_at": len(found),
            "problems": problems,
        },
    }


def _rejected(error: AnnotationError) -> dict[str, str]:
    """All that the error says: the source `prepared` makes it again."""
    return {"file": error.path, "record": error.record, "field": error.field, "cause": error.cause}


def rejected_by_reason(rows: Iterable[dict[str, str]]) -> list[dict[str, Any]]:
    """Reasons by falling count; each with its field and the rejected records, as in report.json."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[(row["field"], reason_of(row["cause"]))].append(row)
    reasons = [
        {"field": field, "reason": reason, "count": len(group), "records": group}
        for (field, reason), group in groups.items()
    ]
    return sorted(reasons, key=lambda row: -row["count"])


def reason_of(cause: str) -> str:
    """A cause without its values, so that like goes with like: "got 5 and 'x'" -> "got N and '...'"."""
    without_names = re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", cause)
    return re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "N", without_names)
