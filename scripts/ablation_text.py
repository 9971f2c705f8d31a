"""The tables of an ablation as Markdown, and in words what follows from them."""

from collections.abc import Mapping
from typing import Any

from scripts.demo_summary import COLUMNS, difference_cells, markdown_table, provenance, value_cells

LIMITS = """\
All differences of one seed are to the same training of the default: where that was a lucky one, they lean down together.
Which changes have more seeds was chosen by the first one's m_vIoU. The trainings are short, and score far below
docs/results/demo_full.md: a part that pays late is not seen here. All cells start from one MLLM, which learned with the
default grounder and prompt; a cell that changes what ETA gives back to the text, or the prompt, changes what is learned
from there on, and not what the MLLM knew before."""
RULE = """\
A difference is called an effect where its interval over sentences excludes 0 and it is outside of the noise of training:
its mean over k seeds is more than 2 / sqrt(k) times the standard deviation of such a difference between seeds. With
{count} cells, one or two may still be chance."""


def markdown(record: Mapping[str, Any], picture: str) -> str:
    """record: as it is in the .json; picture: the name of the figure beside."""
    cells = record["cells"]
    values = {f"{name} ({len(entry['seeds'])})": _value_row(entry) for name, entry in cells.items()}
    columns = [*COLUMNS[:3], "right - wrong m_tIoU", "right - wrong m_vIoU", "grounder parameters", "train minutes"]
    compared = {name: entry for name, entry in cells.items() if "minus_default" in entry}
    rows = {f"{name}: {entry['asks']}": _difference_row(entry) for name, entry in compared.items()}
    num_sentences = next(iter(cells.values()))["values"]["n"]
    parts = [
        "# What the parts of `bridge` are worth",
        *provenance(record),
        f"{num_sentences} sentences about {record['num_videos']} held-out videos; greedy answers; 95 % bootstrap intervals over sentences.",
        *([f"Not there yet: {', '.join(record['missing'])}."] if record["missing"] else []),
        "## Differences to the default",
        f"![differences to the default]({picture})",
        markdown_table("cell", rows, [*COLUMNS[:3], "m_vIoU of each seed", "effect"]),
        "## What follows",
        *conclusions(compared, record),
        LIMITS,
        "## Values",
        "In brackets the number of seeds. Right - wrong: what the right sentence scores above another sample's. "
        "Minutes: from the first logged step to the last, on one core.",
        markdown_table("cell (seeds)", values, columns),
    ]
    return "\n\n".join(parts) + "\n"


def _value_row(entry: Mapping[str, Any]) -> list[str]:
    gaps = difference_cells(entry["right_minus_wrong"])[:2]
    return [*value_cells(entry["values"])[:3], *gaps, f"{entry['parameters']:,}", f"{entry['minutes']:.1f}"]


def _difference_row(entry: Mapping[str, Any]) -> list[str]:
    by_seed = ", ".join(f"{value:+.3f}" for value in entry["minus_default"]["m_vIoU"]["by_seed"])
    return [*difference_cells(entry["minus_default"])[:3], by_seed, _effect(entry)]


def _effect(entry: Mapping[str, Any]) -> str:
    seen = [f"{column} {effect}" for column, effect in entry["effects"].items() if effect != "none seen"]
    return ", ".join(seen) or "none seen"


def conclusions(compared: Mapping[str, Mapping[str, Any]], record: Mapping[str, Any]) -> list[str]:
    """Which defaults the cells speak for, which they speak against, and about which they say nothing."""
    parts = [RULE.format(count=len(compared)), _noise(record)]
    for title, names in verdicts(compared).items():
        shown = [f"- {name}: {compared[name]['asks']} ({_effect(compared[name])})" for name in names]
        parts.append("\n".join([f"{title}:", "", *(shown or ["- none"])]))
    return parts


def verdicts(compared: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Title -> cells."""
    seen = {name: set(entry["effects"].values()) - {"none seen"} for name, entry in compared.items()}
    return {
        "The default stays, the change costs": [name for name, effects in seen.items() if effects == {"lower"}],
        "The change is better here than the default": [name for name, effects in seen.items() if effects == {"higher"}],
        "Better in one, worse in the other": [name for name, effects in seen.items() if len(effects) == 2],
        "No effect at this size: these defaults do not follow from it": [name for name, e in seen.items() if not e],
    }


def _noise(record: Mapping[str, Any]) -> str:
    of_scores, of_differences = record["seed_std"], record["difference_std"]
    if of_differences is None:
        return "No change has several seeds yet: the noise of training is not known, and the intervals alone decide."
    shown = [f"{name} of {std['m_tIoU']:.3f} in m_tIoU and {std['m_vIoU']:.3f} in m_vIoU" for name, std in
             (("a training's score has a standard deviation", of_scores),
              ("its difference to the default's of the same seed one", of_differences))]  # fmt: skip
    return f"Between seeds {shown[0]}, {shown[1]}."
