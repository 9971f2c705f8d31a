"""What is trained: a video MLLM, a grounder on top of it, and the losses that supervise both."""
