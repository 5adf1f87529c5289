"""Learned low-bit quantization (LQ-Nets); knows Keras, not rs_keras."""
