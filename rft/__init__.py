"""Reinforcement fine-tuning with GRPO: Ray, vLLM rollouts, rewards, objective, weight push."""
