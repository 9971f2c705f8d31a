"""report.md: report.json for people. Lists are cut after 20 ids; report.json holds them all."""

from collections.abc import Iterable, Sequence
from typing import Any

from data.preparation.facts import rejected_by_reason
from data.preparation.report import STATISTICS

LISTED = 20


def report_markdown(report: dict[str, Any]) -> str:
    """The whole report; `report` as in report.json."""
    lines = [
        f"# Data report: {report['source']['type']}",
        "",
        "```",
        report["command"],
        "```",
        "",
        *_overview(report["splits"]),
        "",
        "![histograms](histograms.png)",
    ]
    for split, part in report["splits"].items():
        lines += ["", f"## {split}", "", *_split(part)]
    return "\n".join(lines) + "\n"


def _overview(splits: dict[str, Any]) -> list[str]:
    rows = [
        (
            split,
            part["records"],
            part["samples"],
            len(part["rejected"]),
            part["videos"]["distinct"],
            _problem_count(part["videos"]),
        )
        for split, part in splits.items()
    ]
    return _table(("split", "records", "samples", "rejected", "videos", "bad videos"), rows)


def _problem_count(videos: dict[str, Any]) -> str:
    return f"{len({row['video'] for row in videos['problems']}):,}" if videos["looked_at"] else "not looked at"


def _split(part: dict[str, Any]) -> Iterable[str]:
    yield from _table(("task", "query", "samples"), [tuple(row.values()) for row in part["by_task"]])
    yield ""
    yield from _table(("of these", "samples"), list(part["effective"].items()))
    yield from ("", "### Statistics", "")
    rows = [(STATISTICS[name], *values.values()) for name, values in part["statistics"].items()]
    yield from _table(("", "samples", "min", "median", "mean", "max"), rows)
    yield from ("", "### Rejected", "")
    yield from _rejected(rejected_by_reason(part["rejected"]))
    yield from ("", "### Flags", "")
    yield from _flags(part["flags"])
    yield from ("", "### Videos", "")
    yield from _videos(part["videos"])


def _rejected(groups: list[dict[str, Any]]) -> Iterable[str]:
    if not groups:
        yield "No record was rejected."
    for group in groups:
        field = f"field `{group['field']}`: " if group["field"] else ""
        yield f"- {group['count']:,} for {field}{_inline(group['reason'])}"
        yield f"  - {_listed([row['record'] for row in group['records']])}"
        yield f"  - the first: {_inline(group['records'][0]['cause'])}"


def _flags(flags: dict[str, list[str]]) -> Iterable[str]:
    if not flags:
        yield "No sample is flagged."
        return
    yield "Flagged samples are kept. A flag that begins with `record_` counts records, the others samples."
    yield ""
    yield from _table(("flag", "count", "ids"), [(f"`{flag}`", len(ids), _listed(ids)) for flag, ids in flags.items()])


def _videos(videos: dict[str, Any]) -> Iterable[str]:
    if not videos["looked_at"]:
        yield f"{videos['distinct']:,} videos, not looked at: no `--videos`."
        return
    problems = videos["problems"]
    kinds = sorted({row["problem"] for row in problems})
    counts = [f"{len({row['video'] for row in problems if row['problem'] == kind}):,} {kind}" for kind in kinds]
    yield f"{videos['looked_at']:,} videos looked at: {', '.join(counts) or 'nothing wrong'}."
    for kind in kinds:
        rows = [row for row in problems if row["problem"] == kind]
        yield from ("", f"**{kind}**", "")
        yield from _table(
            ("video", "cause", "samples"),
            [(f"`{row['video']}`", _cell(row["cause"]), len(row["samples"])) for row in rows[:LISTED]],
        )
        if len(rows) > LISTED:
            yield from ("", f"and {len(rows) - LISTED:,} more in report.json")


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - LISTED:,} more" if len(ids) > LISTED else ""
    return ", ".join(_inline(name) for name in ids[:LISTED]) + more


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Numbers to the right, with thousands separated."""
    numeric = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
    rules = ["--:" if right else "---" for right in numeric]
    return [_row(header), _row(rules), *(_row([_number(value) for value in row]) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)


def _inline(text: str) -> str:
    """Text from annotations as code: it cannot break the page."""
    return f"`{_cell(text.replace('`', chr(39)))}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
