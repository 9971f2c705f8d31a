"""What is wanted: reward terms as pure functions of batched tensors, and the composer that weighs them."""
