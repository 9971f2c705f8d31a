"""Three ways to ground, compared: one MLLM, the same videos, samples, steps and rewards, and another grounder in each cell.

    python -m scripts.compare_grounders --configs configs/grounders --out outputs/grounders --results docs/results/grounders

An MLLM is taught once what a released one can do: what a sentence is about in frames and videos, and to write intervals, boxes
and tubes. Each cell starts from it with a grounder and a seed: SFT, held-out answers, GRPO, held-out answers. A seed draws the grounder's weights, the
order of samples, the annotators' errors and the rollouts. Started again after a kill, finished stages are skipped and the
interrupted one goes on from its last checkpoint. Cells have records of their own: with `--grounders text` in one terminal
and `--grounders bridge interleaved` in another they run side by side, once the base is there; without `--grounders` it then
measures the latency and writes the report.
"""

from configs.command_line import explained
from configs.run import quiet_environment, setup_logging
from scripts.demo import run_once
from scripts.grounder_cells import RECORD, all_stages, base_stages, latency_stage, load_grounders
from scripts.reports import add_grounders, chosen_grounders, study_parser


def main() -> None:
    """Entry point."""
    parser = study_parser(__doc__, configs="configs/grounders", out="outputs/grounders")
    add_grounders(parser)
    arguments = parser.parse_args()
    setup_logging()
    quiet_environment()
    with explained():
        grounders = load_grounders(arguments.configs)
    chosen = chosen_grounders(parser, arguments.grounders, grounders)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for stage in base_stages(arguments.configs, arguments.out):
        run_once(stage, arguments.out / RECORD)
    trained = {name: grounders[name] for name in chosen}
    for record, stage in all_stages(arguments.configs, arguments.out, trained, arguments.seeds):
        record.parent.mkdir(parents=True, exist_ok=True)
        run_once(stage, record)
    if set(chosen) == set(grounders):  # alone on the machine, whoever ran beside before
        run_once(latency_stage(arguments.out), arguments.out / RECORD)
    from scripts.grounders_report import publish

    with explained():
        publish(grounders, arguments.out, arguments.results, module="scripts.compare_grounders")


if __name__ == "__main__":
    main()
