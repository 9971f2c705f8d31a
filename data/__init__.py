"""What a grounding sample is, how its video is read, how it is asked and answered, and the arithmetic on it."""
