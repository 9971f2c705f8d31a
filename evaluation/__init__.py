"""Predict, score, report; and the one adapter to vLLM, which GRPO's rollouts use too."""
