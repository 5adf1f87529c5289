"""Losses: pure functions of logits, and the objective built from them."""
