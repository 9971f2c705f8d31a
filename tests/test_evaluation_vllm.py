"""A real vLLM engine against the trainer: ids, log-probs, seeds, weight pushes. It runs in an actor on a real cluster."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import GROUNDED, Tiny

from benchmarks.constrained_decoding import in_milliseconds, measure
from data.collate import collate_inputs
from data.encoding import EncodedPrompt, completion_text, encode_prompt
from data.tube_text import parse_single_box, parse_tubes
from data.types import DecodedClip
from data.written_answers import AnswerStyle
from evaluation.vllm_engine import Rollout, RolloutError, SamplingArgs, request_seed
from model.backbone import checkpoint_names
from model.grounding_model import GroundingModel


@pytest.fixture(scope="module")
def prompts(tiny: Tiny) -> list[EncodedPrompt]:
    samples = [*tiny.of_task("stvg")[:4], tiny.of_task("qa")[0], tiny.of_task("rec")[0]]
    return [tiny.encoder(sample) for sample in samples]


@pytest.fixture(scope="module")
def args(tiny: Tiny) -> SamplingArgs:
    return SamplingArgs(
        num_generations=3,
        temperature=0.8,
        max_completion_length=12,
        eos_id=tiny.processor.tokenizer.eos_token_id,
        banned_ids=tuple(tiny.model.banned_ids),
    )


class Server:
    """The engine and the version that it has now."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.version = engine, 0

    def sample(self, prompts: list[EncodedPrompt], args: SamplingArgs) -> list[list[Rollout]]:
        seeds = [
            request_seed(0, 0, str(prompt.clip.frames_THW3.sum()) + str(prompt.unexpanded_ids)) for prompt in prompts
        ]
        return self.engine.generate(prompts, args, seeds=seeds, version=self.version)

    def push(self, model: GroundingModel) -> None:
        self.version += 1
        state = checkpoint_names(model.mllm.state_dict(), model.mllm.config)
        self.engine.push(state, version=self.version)


@pytest.fixture(scope="module")
def server(engine: Any) -> Server:
    return Server(engine)


@pytest.fixture(autouse=True)
def original_weights(server: Server, tiny: Tiny) -> None:
    """Every test starts from the checkpoint's own weights."""
    server.push(tiny.model)


def largest_difference(
    model: GroundingModel, prompts: list[EncodedPrompt], groups: list[list[Rollout]], temperature: float
) -> float:
    """Between the engine's log-probs of its samples and the trainer's."""
    rows = [(p, rollout) for p, group in enumerate(groups) for rollout in group]
    batch = collate_inputs(
        prompts,
        [rollout.completion_ids for _, rollout in rows],
        [[0]] * len(rows),
        vision_of_row=[p for p, _ in rows],
        num_queries=model.num_queries,
        pad_id=0,
    )
    with torch.inference_mode():
        ours = model(temperature=temperature, **batch).logps_BL[batch["score_mask"].bool()]
    theirs = torch.tensor([value for _, rollout in rows for value in rollout.logps])
    assert len(ours) == len(theirs) > 0
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("grounder", GROUNDED)
def test_log_probs_equal_the_trainers(
    grounder: str, server: Server, tiny_of: dict[str, Tiny], prompts: list[EncodedPrompt], args: SamplingArgs
) -> None:
    """Videos and an image, at a temperature other than 1, pixel tokens banned on both sides: <= 1e-4.

    The MLLM of every grounder's checkpoint here is the same one, that of the engine.
    """
    groups = server.sample(prompts, args)
    assert largest_difference(tiny_of[grounder].model, prompts, groups, args.temperature) <= 1e-4


def test_log_probs_equal_at_another_frame_rate(server: Server, tiny: Tiny, args: SamplingArgs) -> None:
    """Timestamps and their positions agree when every second frame is taken."""
    prompt = _thinned(tiny)
    groups = server.sample([prompt], args)
    assert largest_difference(tiny.model, [prompt], groups, args.temperature) <= 1e-4


def _thinned(tiny: Tiny, *, task: str = "stvg", step: int = 2, style: AnswerStyle | None = None) -> EncodedPrompt:
    sample = tiny.of_task(task)[0]
    clip = tiny.encoder(sample).clip
    thin = DecodedClip(clip.frames_THW3[::step].copy(), clip.frame_idx_T[::step], clip.times_sec_T[::step])
    return encode_prompt(tiny.processor, sample, thin, order="query_video_query", style=style)


def test_expanded_ids_are_checked_token_for_token(
    server: Server, prompts: list[EncodedPrompt], args: SamplingArgs
) -> None:
    """A prompt whose expansion differs in one token is refused, not trained on."""
    ids = prompts[0].input_ids_L.clone()
    ids[5] += 1
    with pytest.raises(Exception, match="differ from position 5"):
        server.sample([replace(prompts[0], input_ids_L=ids)], args)


def test_a_blank_video_changes_the_engines_log_probs(
    server: Server, prompts: list[EncodedPrompt], args: SamplingArgs
) -> None:
    """Pixels reach vLLM."""
    clip = prompts[0].clip
    blank = replace(prompts[0], clip=replace(clip, frames_THW3=clip.frames_THW3 * 0))
    greedy = replace(args, num_generations=1, temperature=0.0)
    seen, unseen = (server.sample([prompt], greedy)[0][0] for prompt in (prompts[0], blank))
    assert abs(seen.logps[0] - unseen.logps[0]) > 1e-3 or seen.completion_ids != unseen.completion_ids


def test_a_seeded_rollout_repeats(server: Server, prompts: list[EncodedPrompt], args: SamplingArgs) -> None:
    """Bit-equal, log-probs included: again, alone, and in another order; and a cold cache draws the same tokens."""
    cold = server.sample(prompts, args)
    warm = server.sample(prompts, args)
    assert server.sample(prompts, args) == warm
    assert server.sample(prompts[1:2], args)[0] == warm[1]
    assert server.sample(prompts[::-1], args)[::-1] == warm
    assert [[r.completion_ids for r in g] for g in cold] == [[r.completion_ids for r in g] for g in warm]


def test_another_step_draws_other_tokens(server: Server, prompts: list[EncodedPrompt], args: SamplingArgs) -> None:
    """The seed is a hash of run, step and sample."""
    draws = [
        server.engine.generate(prompts[:1], args, seeds=[request_seed(0, step, "a")], version=server.version)
        for step in (0, 1)
    ]
    assert [r.completion_ids for r in draws[0][0]] != [r.completion_ids for r in draws[1][0]]


@pytest.mark.parametrize("part", ["all", "vision"])
def test_after_a_push_log_probs_equal_the_trainers(
    part: str, server: Server, model: GroundingModel, prompts: list[EncodedPrompt], args: SamplingArgs
) -> None:
    """Also when only vision weights changed: then the encoder's cache is what would be stale."""
    server.sample(prompts, args)  # fill the caches
    torch.manual_seed(1)
    changed = model.mllm if part == "all" else model.mllm.model.visual
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    before = server.sample(prompts, args)
    assert largest_difference(model, prompts, before, args.temperature) > 1e-2
    server.push(model)
    after = server.sample(prompts, args)
    assert largest_difference(model, prompts, after, args.temperature) <= 1e-4


def test_a_stale_engine_is_refused(server: Server, prompts: list[EncodedPrompt], args: SamplingArgs) -> None:
    """Asking for a version that was not pushed is an error."""
    with pytest.raises(Exception, match="asked for weights of version"):
        server.engine.generate(prompts[:1], args, seeds=[0], version=server.version + 1)


def test_weights_under_other_names_are_refused(server: Server, tiny: Tiny) -> None:
    """Names must be those of the checkpoint: a wrapper's prefix, or a missing tensor, is an error."""
    state = dict(list(tiny.model.mllm.state_dict().items())[1:])
    with pytest.raises(Exception, match="differ in 1 names"):
        server.engine.push(state, version=server.version + 1)


def test_an_engine_that_does_not_answer_in_time_is_an_error(
    engine: Any, prompts: list[EncodedPrompt], args: SamplingArgs, server: Server
) -> None:
    """No call waits for ever."""
    from rft.rollout import EngineClient

    impatient = EngineClient(engine._engine, timeout_sec=0.001)
    with pytest.raises(RolloutError, match="did not generate within"):
        impatient.generate(prompts, args, seeds=[0] * len(prompts), version=server.version)


def test_tokens_that_stand_for_pixels_are_never_drawn(
    server: Server, tiny: Tiny, prompts: list[EncodedPrompt], args: SamplingArgs
) -> None:
    """At the highest temperature, where a random model draws from the whole vocabulary."""
    hot = replace(args, num_generations=16, temperature=2.0)
    drawn = {token for group in server.sample(prompts, hot) for rollout in group for token in rollout.completion_ids}
    assert len(drawn) > 100
    assert not drawn & set(tiny.model.banned_ids)


WRITTEN_TASKS = ("stvg", "rec", "temporal", "qa")


@pytest.fixture(scope="module")
def written_prompts(tiny: Tiny) -> list[EncodedPrompt]:
    """One of each task, as the `text` grounder asks; 4 of the 16 frames, so that a tube has at most 4 boxes in a list."""
    return [_thinned(tiny, task=task, step=4, style=AnswerStyle("tube", tube_unit="frames")) for task in WRITTEN_TASKS]


def read_reason(tiny: Tiny, task: str, rollout: Rollout) -> str:
    text = completion_text(tiny.processor, rollout.completion_ids)
    if task == "stvg":
        return parse_tubes([text]).reasons[0]
    read = parse_single_box(text)
    return read if isinstance(read, str) else ""


@pytest.mark.parametrize(("temperature", "num_generations"), [(0.0, 1), (1.5, 6)])
def test_a_grammar_holds_for_written_boxes_alone(
    temperature: float,
    num_generations: int,
    server: Server,
    tiny: Tiny,
    written_prompts: list[EncodedPrompt],
    args: SamplingArgs,
) -> None:
    """One batch of all tasks: a random model's boxes then fail in what the pattern cannot say alone, and all answers end.

    The other tasks' answers stay those of free decoding, token for token.
    """
    free_args = replace(args, temperature=temperature, num_generations=num_generations)
    constrained = server.sample(written_prompts, replace(free_args, constrained=True))
    assert server.sample(written_prompts, replace(free_args, constrained=True)) == constrained
    free = server.sample(written_prompts, free_args)
    for task, ours, theirs in zip(WRITTEN_TASKS[:2], constrained, free, strict=False):
        assert {read_reason(tiny, task, rollout) for rollout in theirs} == {"grammar"}
        assert not any(rollout.is_truncated for rollout in ours)
        assert {read_reason(tiny, task, rollout) for rollout in ours} <= {"", "reversed", "indices", "box"}
    for ours, theirs in zip(constrained[2:], free[2:], strict=True):
        assert [rollout.completion_ids for rollout in ours] == [rollout.completion_ids for rollout in theirs]


def test_log_probs_under_a_grammar_are_not_the_trainers(
    server: Server, tiny: Tiny, written_prompts: list[EncodedPrompt], args: SamplingArgs
) -> None:
    """They are those among the allowed tokens, so that GRPO does not constrain: ", " after a corner is sure (0), and not
    to the trainer."""
    tube = written_prompts[:1]
    groups = server.sample(tube, replace(args, constrained=True))
    assert 0.0 in groups[0][0].logps
    assert largest_difference(tiny.model, tube, groups, args.temperature) > 1.0
    free = server.sample(tube, args)
    assert largest_difference(tiny.model, tube, free, args.temperature) <= 1e-4


def test_exactly_so_many_tokens(server: Server, prompts: list[EncodedPrompt], args: SamplingArgs) -> None:
    """No end token before, and no budget of the prompt's."""
    hot = replace(args, num_generations=16, temperature=2.0, max_completion_length=20)
    lengths, exact = (
        {len(rollout.completion_ids) for group in server.sample(prompts, one) for rollout in group}
        for one in (hot, replace(hot, max_completion_length=4, exact_tokens=20))
    )
    assert len(lengths) > 1 and exact == {20}
    with pytest.raises(ValueError, match="exact_tokens: a grammar ends the answer"):
        replace(args, constrained=True, exact_tokens=20)


def test_what_is_forgotten_is_computed_anew(server: Server, tiny: Tiny, args: SamplingArgs) -> None:
    """Keys and values of a prompt, in whole blocks of 128 tokens on CPU, and what the vision encoder made of its video."""
    import ray

    def cached(actor: Any) -> tuple[int, int]:
        """Tokens of the prompt that were not computed when it was asked once more; encoded videos that the encoder keeps."""
        from vllm import SamplingParams

        from data.encoding import vllm_prompt

        llm = actor._engine._llm
        encoded = llm.collective_rpc(lambda worker: len(worker.model_runner.encoder_cache))[0]
        (output,) = llm.generate([vllm_prompt(prompt)], SamplingParams(max_tokens=1), use_tqdm=False)
        return output.num_cached_tokens, encoded

    def forget(actor: Any) -> None:
        actor._engine.forget()

    prompt = replace(_thinned(tiny, step=1, style=AnswerStyle("tube")), pixel_values_VC=torch.empty(0))
    server.sample([prompt], replace(args, exact_tokens=4))
    kept_tokens, kept_videos = ray.get(server.engine._engine.__ray_call__.remote(cached))
    assert kept_tokens > 0 and kept_videos > 0
    ray.get(server.engine._engine.__ray_call__.remote(forget))
    assert ray.get(server.engine._engine.__ray_call__.remote(cached)) == (0, 0)


def test_what_constrained_decoding_costs(
    server: Server, written_prompts: list[EncodedPrompt], args: SamplingArgs
) -> None:
    """Both kinds of answers are cut off after 8 tokens."""
    greedy = replace(args, num_generations=1, temperature=0.0, max_completion_length=8)
    prompts = [replace(written_prompts[0], box_tokens=0)] * 2
    measured = measure(server.engine, prompts, greedy, repeats=1, version=server.version)
    assert (measured["answers"], measured["answer_tokens"]) == (2, 8)
    with pytest.raises(RuntimeError, match="answers of one length"):
        short = replace(written_prompts[1], box_tokens=100)
        measure(server.engine, [*prompts, short], greedy, repeats=1, version=server.version)


def test_costs_are_told_for_an_answer_and_a_token() -> None:
    """Calls of 4 answers with 50 tokens: 1.0 s free, 1.2 s under the grammar, 1.5 s with its compilation."""
    told = in_milliseconds({"free": 1.0, "constrained": 1.2}, 1.5, num_answers=4, num_tokens=50)
    assert told == {
        "answers": 4, "answer_tokens": 50, "ratio": 1.2, "free_ms": 250.0, "constrained_ms": 300.0,
        "per_token_us": 1000.0, "first_ms": 300.0,
    }  # fmt: skip
