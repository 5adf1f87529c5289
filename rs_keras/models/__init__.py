"""Backbones and the classifier they are part of."""
