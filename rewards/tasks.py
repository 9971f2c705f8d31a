"""Samples of several tasks in one batch: each is worth the terms of its own task, and logged by it.

    stvg      `weights`          rewards.weights, or those of the preset
    temporal  rewards.tasks      format, temporal: tIoU of the interval (VideoChat-R1, 2504.06958)
    rec       rewards.tasks      format, viou, spatial: a tube of one frame, so that viou is the IoU of its box (VLM-R1, 2504.07615)
    qa        rewards.tasks      format, choice: 1 for the right letter (Video-R1, 2503.21776)

Shapes: B completions, K terms, G completions of each prompt.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from configs.base import ConfigError


def weigh_by_task(terms_BK: Tensor, tasks: Sequence[str], weights_K_of_task: Mapping[str, Tensor]) -> Tensor:
    """The weighted sum of each row's terms, with the weights of its task. -> [B]; the device is not waited for.

    Raises ConfigError for a task without weights.
    """
    total_B = terms_BK.new_zeros(len(tasks))
    present = dict.fromkeys(tasks)
    if missing := [task for task in present if task not in weights_K_of_task]:
        raise ConfigError(f"rewards.tasks: expected weights for the task {missing[0]}, which a sample has")
    for task in present:
        weighed_B = terms_BK @ weights_K_of_task[task].to(terms_BK.device, non_blocking=True)
        if len(present) == 1:
            return weighed_B
        is_task_B = torch.tensor([name == task for name in tasks]).to(terms_BK.device, non_blocking=True)
        total_B = torch.where(is_task_B, weighed_B, total_B)
    return total_B


def weights_of_rows(tasks: Sequence[str], weights_K_of_task: Mapping[str, Tensor], device: torch.device) -> Tensor:
    """The weights of each row's task. -> [B, K], or [1, K] where there is one task alone; the device is not waited for."""
    present = dict.fromkeys(tasks)
    weights_BK = torch.stack([weights_K_of_task[task] for task in (tasks if len(present) > 1 else present)])
    return weights_BK.to(device, non_blocking=True)


def metrics_by_task(
    names: Sequence[str],
    terms_BK: Tensor,
    tasks: Sequence[str],
    earned: Mapping[str, Sequence[str]],
    num_generations: int,
) -> dict[str, float]:
    """For each task its terms' means (`reward/qa/choice`) and mean standard deviation within groups (`.../choice_group_std`).

    earned: the terms of each task. Rows of a group follow each other and have one task. Nothing where there is one task
    alone: then the batch's own numbers say it.
    """
    tasks_P = tasks[::num_generations]
    present = dict.fromkeys(tasks_P)
    if len(present) < 2:
        return {}
    terms_PGK = terms_BK.detach().unflatten(0, (-1, num_generations))
    metrics = {}
    for task in present:
        of_task_PGK = terms_PGK[[number for number, name in enumerate(tasks_P) if name == task]]
        for name in earned[task]:
            values_PG = of_task_PGK[..., names.index(name)]
            metrics[f"reward/{task}/{name}"] = float(values_PG.mean())
            metrics[f"reward/{task}/{name}_group_std"] = float(values_PG.std(dim=1).mean())
    return metrics
