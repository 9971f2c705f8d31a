"""Published numbers, in per cent, each with where it was read and by which protocol it was scored.

STVG-o1 is arXiv 2511.21375v1, tables 1 to 3, which also reports other systems. Protocols are not uniform: gaps below a
point mean nothing. TubeDETR's first numbers were inflated by an error in the union and are not here; these are the
corrected ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

TUBE_COLUMNS = ("m_tIoU", "m_vIoU", "vIoU@0.3", "vIoU@0.5")
TEMPORAL_COLUMNS = ("R1@0.3", "R1@0.5", "R1@0.7")

O1 = "STVG-o1 (2511.21375)"
O1_README = f"{O1}; own README"
SECONDARY = "secondary notes"
UNKNOWN, TUBEDETR, STCAT = "not stated", "tubedetr", "stcat"
STVG_R1 = "own: seconds, inclusive ends, >="
LLAVA_ST = "own: 100 frames, >="


@dataclass(frozen=True)
class Published:
    """A row. group: which sentences ("all", "declarative", "interrogative"). values: by column, in per cent."""

    system: str
    values: dict[str, float]
    source: str
    protocol: str
    group: str = "all"


def _rows(columns: Sequence[str], group: str, *rows: tuple[str, str, str, str]) -> tuple[Published, ...]:
    """(system, "43.7/32.4/-/23.5", source, protocol) -> rows; "-" was not reported."""
    return tuple(
        Published(
            system,
            {name: float(v) for name, v in zip(columns, numbers.split("/"), strict=True) if v != "-"},
            source,
            protocol,
            group,
        )
        for system, numbers, source, protocol in rows
    )


HCSTVG_V1_TEST = _rows(
    TUBE_COLUMNS,
    "all",
    ("STGVT", "-/18.2/26.8/9.5", f"{O1}; CG-STVG README", UNKNOWN),
    ("STVGBert", "-/20.4/29.4/11.3", O1, UNKNOWN),
    ("TubeDETR", "43.7/32.4/49.8/23.5", O1_README, TUBEDETR),
    ("STCAT", "49.4/35.1/57.7/30.1", O1_README, STCAT),
    ("SGFDN", "46.9/35.8/56.3/37.1", O1, UNKNOWN),
    ("STVGFormer", "-/36.9/62.2/34.8", O1, UNKNOWN),
    ("VG-DINO", "-/38.3/62.5/36.1", O1, UNKNOWN),
    ("CG-STVG", "52.8/38.4/61.5/36.3", O1_README, STCAT),
    ("TA-STVG", "53.0/39.1/63.1/36.8", O1_README, STCAT),
    ("Gemini-2.5-Pro", "55.1/25.9/39.1/9.9", O1, UNKNOWN),
    ("GPT-4o", "27.5/7.9/4.0/0.3", O1, UNKNOWN),
    ("GroundingGPT", "22.2/16.7/15.0/4.9", O1, UNKNOWN),
    ("Qwen2.5-VL-7B, zero-shot", "25.6/19.1/20.2/12.6", O1, UNKNOWN),
    ("Qwen2.5-VL-7B, two stages", "40.3/19.7/-/7.9", f"STVG-R1, by {SECONDARY}", STVG_R1),
    ("LLaVA-Video-SFT", "52.8/27.7/43.1/21.3", O1, UNKNOWN),
    ("Qwen2.5-VL-SFT", "53.5/28.6/45.2/21.9", O1, UNKNOWN),
    ("SpaceVLLM", "56.9/39.3/66.6/36.9", O1, UNKNOWN),
    ("STVG-R1", "56.9/39.1/66.7/38.6", "own README", STVG_R1),
    ("STVG-o1", "60.3/44.1/73.3/43.5", O1, UNKNOWN),
    ("TubeRMC, weakly supervised", "-/19.38/23.88/-", SECONDARY, UNKNOWN),
    ("DEViL", "-/43.1/-/-", "2512.06673, abstract", "version of HC-STVG not stated"),
)

HCSTVG_V2_VAL = _rows(
    TUBE_COLUMNS,
    "all",
    ("PCC", "-/30.0/-/-", "CG-STVG README", UNKNOWN),
    ("2D-Tan", "-/30.4/50.4/18.8", "CG-STVG README", UNKNOWN),
    ("MMN", "-/30.3/49.0/25.6", "CG-STVG README", UNKNOWN),
    ("TubeDETR", "53.9/36.4/58.8/30.6", O1, TUBEDETR),
    ("STVGFormer", "58.1/38.7/65.5/33.8", O1, UNKNOWN),
    ("VG-DINO", "-/39.9/67.1/34.5", O1, UNKNOWN),
    ("CG-STVG", "60.0/39.5/64.5/36.3", O1_README, STCAT),
    ("TA-STVG", "60.4/40.2/65.8/36.7", O1_README, STCAT),
    ("ART-STVG", "59.2/39.2/-/-", SECONDARY, UNKNOWN),
    ("Gemini-2.5-Pro", "60.4/24.5/34.6/9.6", O1, UNKNOWN),
    ("GPT-4o", "32.7/9.1/5.7/0", O1, UNKNOWN),
    ("GroundingGPT", "19.6/14.7/16.6/3.1", O1, UNKNOWN),
    ("Qwen2.5-VL-7B, zero-shot", "22.9/13.0/15.6/6.4", O1, UNKNOWN),
    ("LLaVA-Video-SFT", "54.2/24.8/40.1/15.5", O1, UNKNOWN),
    ("Qwen2.5-VL-SFT", "55.3/26.5/38.6/20.2", O1, UNKNOWN),
    ("SpaceVLLM", "58.0/34.0/56.9/24.7", O1, UNKNOWN),
    ("STVG-R1", "62.0/40.2/67.8/38.8", "own README", STVG_R1),
    ("STVG-o1", "63.8/41.2/68.5/39.6", O1, UNKNOWN),
    ("SARL-STG", "64.2/42.5/-/42.1", SECONDARY, UNKNOWN),
)

VIDSTG_TEST = _rows(
    TUBE_COLUMNS,
    "declarative",
    ("STGRN", "48.5/19.8/25.8/14.6", O1, UNKNOWN),
    ("OMRN", "50.7/23.1/32.6/16.4", O1, UNKNOWN),
    ("STVGBert", "-/24.0/30.9/18.4", O1, UNKNOWN),
    ("TubeDETR", "48.1/30.4/42.5/28.2", O1_README, TUBEDETR),
    ("STCAT", "50.8/33.1/46.2/32.6", O1_README, STCAT),
    ("SGFDN", "45.1/28.3/41.7/29.1", O1, UNKNOWN),
    ("STVGFormer", "-/33.7/47.2/32.8", O1, UNKNOWN),
    ("CG-STVG", "51.4/34.0/47.7/33.1", O1_README, STCAT),
    ("VG-DINO", "52.0/34.7/48.1/34.0", O1, UNKNOWN),
    ("TA-STVG", "51.7/34.4/48.2/33.5", O1_README, STCAT),
    ("Gemini-2.5-Pro", "49.9/22.5/33.6/12.0", O1, UNKNOWN),
    ("GPT-4o", "38.3/9.2/7.1/1.6", O1, UNKNOWN),
    ("GroundingGPT", "15.5/12.3/13.2/4.1", O1, UNKNOWN),
    ("Qwen2.5-VL-7B, zero-shot", "16.8/10.9/14.3/5.4", O1, UNKNOWN),
    ("LLaVA-Video-SFT", "39.5/19.2/20.3/13.8", O1, UNKNOWN),
    ("LLaVA-ST", "45.5/24.8/36.0/22.9", O1, LLAVA_ST),
    ("Qwen2.5-VL-SFT", "41.6/20.3/26.1/15.4", O1, UNKNOWN),
    ("SpaceVLLM", "47.7/27.4/39.1/26.2", O1_README, UNKNOWN),
    ("STVG-o1", "52.1/33.5/48.4/32.0", O1, UNKNOWN),
    ("SARL-STG", "52.3/35.5/-/-", SECONDARY, UNKNOWN),
    ("TubeRMC, weakly supervised", "-/15.93/-/-", SECONDARY, UNKNOWN),
) + _rows(
    TUBE_COLUMNS,
    "interrogative",
    ("STGRN", "47.0/18.3/21.1/12.8", O1, UNKNOWN),
    ("OMRN", "49.2/20.6/28.4/14.1", O1, UNKNOWN),
    ("STVGBert", "-/22.5/26.0/16.0", O1, UNKNOWN),
    ("TubeDETR", "46.9/25.7/35.7/23.2", O1_README, TUBEDETR),
    ("STCAT", "49.7/28.2/39.2/26.6", O1_README, STCAT),
    ("SGFDN", "44.8/25.8/36.9/23.9", O1, UNKNOWN),
    ("STVGFormer", "-/28.5/39.9/26.2", O1, UNKNOWN),
    ("CG-STVG", "49.9/29.0/40.5/27.5", O1_README, STCAT),
    ("VG-DINO", "50.8/29.9/41.0/27.6", O1, UNKNOWN),
    ("TA-STVG", "50.2/29.5/41.5/28.0", O1, STCAT),
    ("Gemini-2.5-Pro", "45.4/13.7/17.3/8.1", O1, UNKNOWN),
    ("GPT-4o", "39.8/6.1/3.5/0.6", O1, UNKNOWN),
    ("GroundingGPT", "11.9/8.7/9.6/2.9", O1, UNKNOWN),
    ("Qwen2.5-VL-7B, zero-shot", "13.8/8.5/11.3/4.4", O1, UNKNOWN),
    ("LLaVA-Video-SFT", "38.6/15.7/15.3/10.4", O1, UNKNOWN),
    ("LLaVA-ST", "43.2/20.0/28.1/17.5", O1, LLAVA_ST),
    ("Qwen2.5-VL-SFT", "40.9/17.1/17.6/13.9", O1, UNKNOWN),
    ("SpaceVLLM", "48.5/25.4/35.9/22.2", O1_README, UNKNOWN),
    ("STVG-o1", "50.5/27.9/39.8/26.0", O1, UNKNOWN),
    ("SARL-STG", "50.4/29.9/-/-", SECONDARY, UNKNOWN),
    ("TubeRMC, weakly supervised", "-/13.47/-/-", SECONDARY, UNKNOWN),
) + _rows(
    TUBE_COLUMNS,
    "all",
    ("Bridge-STG, mean of m_vIoU", "-/34.3/-/-", "2604.08014, abstract", UNKNOWN),
)  # fmt: skip

CHARADES_STA = _rows(
    TEMPORAL_COLUMNS,
    "all",
    ("Time-R1, zero-shot", "78.1/60.8/35.3", "own README", "failures left out"),
    ("Time-R1, fine-tuned", "82.8/72.2/50.1", "own README", "failures left out; validated on test"),
    ("STVG-R1, zero-shot", "73.2/52.5/-", "own README", UNKNOWN),
)

ACTIVITYNET_CAPTIONS = _rows(
    TEMPORAL_COLUMNS,
    "all",
    ("Time-R1, zero-shot", "58.6/39.0/21.4", "own README", "failures left out"),
    ("Time-R1, fine-tuned", "73.3/55.6/34.0", "own README", "failures left out"),
)

BENCHMARKS: dict[str, tuple[Published, ...]] = {
    "hcstvg_v1_test": HCSTVG_V1_TEST,
    "hcstvg_v2_val": HCSTVG_V2_VAL,
    "vidstg_test": VIDSTG_TEST,
    "charades_sta": CHARADES_STA,
    "activitynet_captions": ACTIVITYNET_CAPTIONS,
}
