"""The tables of a comparison of grounders as Markdown, the order that follows, and the published one beside it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from evaluation.benchmarks import HCSTVG_V1_TEST, HCSTVG_V2_VAL, VIDSTG_TEST, Published
from scripts.demo_summary import COLUMNS, difference_cells, markdown_table, provenance, value_cells
from scripts.grounder_cells import TITLES
from scripts.seed_scores import is_certain

SYSTEMS = ("Bridge-STG", "SpaceVLLM", "STVG-o1")
PUBLISHED: dict[str, Sequence[Published]] = {
    "VidSTG test": VIDSTG_TEST, "HC-STVG v1 test": HCSTVG_V1_TEST, "HC-STVG v2 val": HCSTVG_V2_VAL,
}  # fmt: skip
JUDGED = "m_vIoU"
SETTING = """\
All cells start from one MLLM. It has learned, on frames and on videos, which tokens and frames a sentence is about (ETA's losses
alone, no decoder's), and then to write intervals, boxes and whole tubes as text, which is what `text` answers with: more of its own
training than the other two have had. From there all see the same samples in the same order and the same videos at the same size, for
the same number of steps, with the same rewards in GRPO. What differs is the grounder, and with it what an answer costs; and
`interleaved` learns its boxes from 8 frames inside the interval, `bridge` from 6 and 2 outside. Right - wrong: what the
right sentence scores above another sample's."""
COST = """\
Tokens: that an answer has, its end included. Seconds: of one answer, {batch_size} at a time, the video read and all forwards made.
Minutes: all steps of the training at the median time of a step. Where cells ran side by side, seconds and minutes are those of a
shared machine."""
RULE = """\
`>`: the interval of the difference over sentences excludes 0 and every one of at least two seeds has its sign; `~`: not so. Sentences
are resampled as if independent, though some videos have two, and no correction is made for several comparisons."""
LIMITS = """\
A model of 1.3 M parameters on rendered shapes: what it is worth for released backbones is not known, and the published
systems differ in backbone, data and steps too. SFT's text learns intervals that are off by up to {error_sec:g} s, GRPO's reward is exact."""


def markdown(record: Mapping[str, Any], picture: str) -> str:
    """record: as it is in the .json; picture: the name of the figure beside."""
    num_sentences = next(iter(next(iter(filter(None, record["steps"].values()))).values()))["values"]["n"]
    parts = [
        "# Three grounders in one pipeline",
        *provenance(record),
        f"{num_sentences} sentences about {record['num_videos']} held-out videos; greedy answers; 95 % bootstrap intervals over "
        "sentences, of each sentence's mean over seeds.",
        SETTING,
        "\n".join(f"- `{name}`: {grounder['about']}" for name, grounder in record["grounders"].items()),
        f"![scores and costs]({picture})",
        markdown_table(
            "grounder (seeds)", value_rows(record), [*COLUMNS, "right - wrong m_tIoU", "right - wrong m_vIoU"]
        ),
        "The truth, written as each grounder writes it, with a decoder that is right wherever it looks:",
        markdown_table("the most there is", {name: value_cells(row) for name, row in record["ceiling"].items()}),
        "## What an answer and a training take",
        COST.format(batch_size=record["configs"]["evaluate"]["batch_size"]),
        markdown_table("grounder", cost_rows(record), ["tokens", "seconds", "minutes"]),
        *latency(record["latency"]),
        "## Differences",
        markdown_table("difference", difference_rows(record), [*COLUMNS, f"{JUDGED} of each seed"]),
        "## The order",
        *order_lines(record),
        RULE,
        LIMITS.format(error_sec=record["configs"]["sft"]["annotation_error"]["max_error_sec"]),
        "## Published",
        markdown_table("system", published_rows(), ["m_tIoU", JUDGED, "source"]),
    ]
    return "\n\n".join(parts) + "\n"


def value_rows(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Scores of every grounder after every step."""
    return {
        f"{name}, {TITLES[step]} ({len(entry['seeds'])})": [
            *value_cells(entry["values"]), *difference_cells(entry["right_minus_wrong"])[:2]
        ]
        for step, entries in record["steps"].items() for name, entry in entries.items()
    }  # fmt: skip


def cost_rows(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """What answers and trainings took."""
    return {
        f"{name}, {TITLES[step]}": [f"{entry['generated_tokens']:.1f}", f"{entry['seconds_per_sample']:.3f}", f"{entry['minutes']:.1f}"]
        for step, entries in record["steps"].items() for name, entry in entries.items()
    }  # fmt: skip


def latency(result: Mapping[str, Any] | None) -> list[str]:
    """The line of benchmarks.tube_latency."""
    if result is None:
        return ["The latency of a tube of 20 frames was not measured."]
    return [
        f"A tube of {result['frames']} frames alone (`python -m benchmarks.tube_latency`, in turn in one run): `text` takes "
        f"{result['bridge_ratio']:.1f} times as long as `bridge` and {result['interleaved_ratio']:.1f} times as long as "
        "`interleaved`."
    ]


def difference_rows(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Between grounders after each step, and what GRPO adds to each."""
    rows = {
        f"{TITLES[step]}: {pair}": row for step, pairs in record["differences"].items() for pair, row in pairs.items()
    }
    rows |= {f"GRPO - SFT: {name}": row for name, row in record["grpo_minus_sft"].items()}
    return {
        title: [*difference_cells(row), ", ".join(f"{value:+.3f}" for value in row[JUDGED]["by_seed"])]
        for title, row in rows.items()
    }


def order(entries: Mapping[str, Any], differences: Mapping[str, Any]) -> str:
    """Grounders by m_vIoU, the best first, with `>` between those that differ for certain and `~` otherwise."""
    names = sorted(entries, key=lambda name: -entries[name]["values"][JUDGED])
    text = names[0]
    for better, worse in pairwise(names):
        text += f" {'>' if _is_above(better, worse, differences) else '~'} {worse}"
    return text


def _is_above(better: str, worse: str, differences: Mapping[str, Any]) -> bool:
    signs = {f"{better} - {worse}": 1, f"{worse} - {better}": -1}
    told = [(differences[title][JUDGED], sign) for title, sign in signs.items() if title in differences]
    return any(is_certain(difference) and difference["mean"] * sign > 0 for difference, sign in told)


def order_lines(record: Mapping[str, Any]) -> list[str]:
    """Ours after each step, and the published one."""
    ours = {
        TITLES[step]: order(entries, record["differences"][step])
        for step, entries in record["steps"].items()
        if entries
    }
    published = sorted(SYSTEMS, key=lambda system: -published_mean(system))
    shown = " > ".join(f"{system} {published_mean(system):.1f}" for system in published)
    return [
        "\n".join(f"- here, {title}, by {JUDGED}: {text}" for title, text in ours.items())
        + f"\n- published, by the mean of both kinds of VidSTG sentences: {shown}"
    ]


def published_mean(system: str) -> float:
    """m_vIoU on VidSTG's test set: the mean over declarative and interrogative sentences."""
    rows = [row.values[JUDGED] for row in VIDSTG_TEST if row.system.partition(",")[0] == system]
    return sum(rows) / len(rows)


def published_rows() -> dict[str, list[str]]:
    """What the three papers, or those that compare with them, report."""
    return {
        f"{row.system}: {benchmark}, {row.group}": [_shown(row, "m_tIoU"), _shown(row, JUDGED), row.source]
        for benchmark, rows in PUBLISHED.items() for row in rows if row.system.partition(",")[0] in SYSTEMS
    }  # fmt: skip


def _shown(row: Published, column: str) -> str:
    return f"{row.values[column]:.1f}" if column in row.values else "not reported"
