"""The scores of `evaluation.score` as Markdown: means in per cent with their 95 % intervals, failures, published rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.benchmarks import TEMPORAL_COLUMNS, TUBE_COLUMNS, Published

SHOWN_FAILURES = 20
REJECTED = "Annotations left out"


def markdown_report(result: Mapping[str, Any], published: Sequence[Published] = ()) -> str:
    """result: what metrics.json holds (evaluation/score.py)."""
    parts = [f"Scores of {result['predictions']}"]
    if result["rejected"]:
        parts.append(listing(REJECTED, result["rejected"]))
    for task, summary in result["tasks"].items():
        title = f"{task}, protocol {result['protocol']}" if task == "stvg" else task
        parts.append(f"## {title}\n\n{_task_table(summary)}")
        parts.append(_failures(summary["failures"]))
        if published and any(set(row.values) & set(summary["all"]) for row in published):
            parts.append(_published_table(summary, published, str(result["protocol"])))
        if "compare" in result:
            parts.append(f"Difference to {result['compare']['predictions']}, paired:\n\n"
                         + _difference_table(result["compare"]["tasks"][task]))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _groups(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: group for name, group in summary.items() if name != "failures"}


def _columns(group: Mapping[str, Any]) -> list[str]:
    return [name for name in group if f"{name}_ci95" in group]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _task_table(summary: Mapping[str, Any]) -> str:
    groups = _groups(summary)
    columns = _columns(groups["all"])
    rows = [[name, str(group["n"]), *(_cell(group, column) for column in columns)] for name, group in groups.items()]
    return _table(["%", "n", *columns], rows)


def _cell(group: Mapping[str, Any], column: str) -> str:
    if column not in group:
        return "-"
    low, high = group[f"{column}_ci95"]
    count = f" (n {group[f'{column}_n']})" if f"{column}_n" in group else ""
    return f"{100 * group[column]:.2f} [{100 * low:.2f}, {100 * high:.2f}]{count}"


def _failures(failures: Mapping[str, str]) -> str:
    counts = Counter(failures.values())
    if not counts:
        return "No failures."
    total = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return listing(f"Failures, each counted as 0 ({total})", [f"{key}: {reason}" for key, reason in failures.items()])


def listing(title: str, entries: Sequence[str]) -> str:
    """How many there are, and the first of them."""
    lines = [f"{title}: {len(entries)}", "", *(f"- {entry}" for entry in entries[:SHOWN_FAILURES])]
    rest = len(entries) - SHOWN_FAILURES
    return "\n".join([*lines, f"- and {rest} more, see metrics.json"] if rest > 0 else lines)


def _published_table(summary: Mapping[str, Any], published: Sequence[Published], protocol: str) -> str:
    """Published rows of each group, ours last."""
    reported = {name for row in published for name in row.values}
    columns = [name for name in (*TUBE_COLUMNS, *TEMPORAL_COLUMNS) if name in reported]
    tables = []
    for group in dict.fromkeys(row.group for row in published):
        rows = [
            [row.system, *(f"{row.values[c]:g}" if c in row.values else "-" for c in columns), row.protocol, row.source]
            for row in published
            if row.group == group
        ]
        if group in summary:
            ours = summary[group]
            means = [f"**{100 * ours[c]:.2f}**" if c in ours else "-" for c in columns]
            rows.append([f"**this file** (n {ours['n']})", *means, protocol, "this report"])
        tables.append(f"Published, {group}:\n\n" + _table(["system", *columns, "protocol", "source"], rows))
    return "\n\n".join(tables)


def _difference_table(compared: Mapping[str, Any]) -> str:
    columns = list(compared["all"])
    rows = [[name, *(_difference(group.get(column)) for column in columns)] for name, group in compared.items()]
    return _table(["this - other, %", *columns], rows)


def _difference(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "-"
    low, high = entry["ci95"]
    return f"{100 * entry['mean']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
