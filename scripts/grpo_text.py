"""The tables of a study of GRPO as Markdown."""

from collections.abc import Mapping
from typing import Any

from scripts.demo_summary import COLUMNS, difference_cells, markdown_table, provenance, value_cells
from scripts.seed_scores import is_certain

JUDGED = ("m_tIoU", "m_vIoU")
SIGNALS = (
    "reward/temporal", "reward/temporal_group_std", "reward/viou", "reward/viou_group_std", "reward/no_signal_groups",
    "policy/entropy", "mismatch/mean",
)  # fmt: skip
SETTING = """\
Every arm of a seed goes on from the same supervised checkpoint, which is the one with the lowest validation loss of its training, and
on the same videos, which are those of that training. GRPO arms take the same number of steps; supervised arms as many as fit into
the time of the first GRPO arm. Rewards and supervised targets know the same intervals and boxes. Start-up and evaluation are in no
time; steps and minutes of the checkpoint are those until it was stopped."""
RULE = """\
Certain: the interval of the difference over sentences excludes 0 and every one of at least two seeds has its sign. Minutes: all steps
at the median time of a step."""


def markdown(record: Mapping[str, Any], picture: str) -> str:
    """record: as it is in the .json; picture: the name of the figure beside."""
    num_sentences = next(iter(next(iter(record["grounders"].values()))["arms"].values()))["values"]["n"]
    parts = [
        "# GRPO against more supervised training",
        *provenance(record),
        f"{num_sentences} sentences about {record['num_videos']} held-out videos; greedy answers; 95 % bootstrap intervals over "
        "sentences, of each sentence's mean over seeds.",
        SETTING,
        f"![differences to the checkpoint]({picture})",
        *(part for name, entry in record["grounders"].items() for part in grounder_parts(name, entry)),
        RULE,
    ]
    return "\n\n".join(parts) + "\n"


def grounder_parts(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Scores, differences and the signal of one grounder."""
    return [
        f"## `{name}`",
        markdown_table("arm (seeds)", value_rows(entry), [*COLUMNS, "right - wrong m_tIoU", "minutes", "steps"]),
        markdown_table(
            "difference", difference_rows(entry), [*JUDGED, *(f"{c} of each seed" for c in JUDGED), "certain"]
        ),
        *validation_lines(entry["arms"]["checkpoint"]),
        "The signal: means over the first and the last ten steps, on sampled answers.",
        markdown_table("arm", signal_rows(entry), SIGNALS),
    ]


def validation_lines(checkpoint: Mapping[str, Any]) -> list[str]:
    """The validation losses that say where the checkpoint's training was stopped, in one paragraph; of no seeds: none."""
    curves = [
        f"seed {seed}: " + ", ".join(f"{step} {loss:.3f}" for step, loss in losses.items())
        for seed, losses in zip(checkpoint["seeds"], checkpoint["validation"] or [], strict=False)
    ]
    return ["Validation loss of the checkpoint's training by step; " + "; ".join(curves) + "."] if curves else []


def value_rows(entry: Mapping[str, Any]) -> dict[str, list[str]]:
    """Scores of every arm, and what it took."""
    return {
        f"{arm} ({len(row['seeds'])})": [
            *value_cells(row["values"]), difference_cells(row["right_minus_wrong"])[0],
            ", ".join(f"{minutes:.1f}" for minutes in row["minutes"]), ", ".join(map(str, row["steps"])),
        ]
        for arm, row in entry["arms"].items()
    }  # fmt: skip


def difference_rows(entry: Mapping[str, Any]) -> dict[str, list[str]]:
    """Paired differences, and of which scores they are certain."""
    return {
        title: [
            *difference_cells(row)[:2],
            *(", ".join(f"{value:+.3f}" for value in row[column]["by_seed"]) for column in JUDGED),
            ", ".join(f"{column} {'higher' if row[column]['mean'] > 0 else 'lower'}" for column in JUDGED if is_certain(row[column]))
            or "nothing",
        ]
        for title, row in entry["differences"].items()
    }  # fmt: skip


def signal_rows(entry: Mapping[str, Any]) -> dict[str, list[str]]:
    """First and last steps of every GRPO arm."""
    return {
        arm: [" → ".join(f"{value:.3g}" for value in row["signal"][name]) for name in SIGNALS]
        for arm, row in entry["arms"].items() if row["signal"] is not None
    }  # fmt: skip
