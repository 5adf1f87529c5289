"""Training: the multi-resolution step, the optimizer and the run loop."""
