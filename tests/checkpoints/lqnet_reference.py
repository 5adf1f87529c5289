"""The quantized networks once more, from reference-facts.md, in plain TensorFlow.

Independent of the package: variables by their TensorFlow names, quantization by the
distance to each level, float64 levels. For the networks whose golden logits are kept
elsewhere.
"""

import itertools

import numpy as np
import tensorflow as tf

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


class Network:
    """Logits of (N, H, W, 3) images in network units, at one resolution."""

    def __init__(self, variables, depth, activation_bits=32, shortcut="B"):
        self.variables = variables
        self.depth = depth
        self.activation_bits = activation_bits
        self.shortcut_kind = shortcut

    def __call__(self, x, resolution):
        self.r = f"{resolution:03d}"
        x = tf.nn.relu(self.bn(self.conv(x, "conv0", 2), f"conv0/bn{self.r}"))
        x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        for group, count in enumerate(BLOCKS[self.depth]):
            for index in range(count):
                stride = 2 if group > 0 and index == 0 else 1
                x = self.block(x, f"group{group}/block{index}", stride, index == 0)
            if self.activation_bits < 32:
                x = tf.nn.relu(self.bn(x, f"group{group}/bn-last{self.r}/bn"))
                if self.shortcut_kind == "B" and group < 3:
                    x = self.quantize(x, f"group{group}/quant_last")
        x = tf.reduce_mean(x, (1, 2))
        return x @ self.variables["linear/W"] + self.variables["linear/b"]

    def block(self, x, name, stride, first):
        side = x
        preact = self.activation_bits < 32
        if preact and not first:
            x = tf.nn.relu(self.bn(x, f"{name}/bn-preact{self.r}/bn"))
        if preact and (not first or stride == 1 or self.shortcut_kind == "A"):
            x = self.quantize(x, f"{name}/quant1")
        last = 2 if self.depth == 18 else 3
        strided = 1 if self.depth == 18 else 2
        for index in range(1, last + 1):
            scope = f"{name}/conv{index}"
            x = self.conv(x, scope, stride if index == strided else 1)
            x = self.bn(x, f"{scope}/bn{self.r}")
            if index < last:
                x = tf.nn.relu(x)
                if preact:
                    x = self.quantize(x, f"{name}/quant{index + 1}")
        x = x + self.shortcut(side, name, stride, x.shape[-1])
        return x if preact else tf.nn.relu(x)

    def shortcut(self, x, name, stride, channels):
        if x.shape[-1] == channels:
            return x
        if self.shortcut_kind == "B":
            scope = f"{name}/convshortcut"
            return self.bn(self.conv(x, scope, stride), f"{scope}/bn{self.r}")
        x = tf.nn.avg_pool2d(x, stride, stride, "VALID")
        return tf.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))

    def conv(self, x, scope, stride):
        kernel = self.variables[f"{scope}/W"]
        basis = self.variables.get(f"{scope}/weight_quant/basis")
        if basis is not None:
            kernel = np.stack(
                [
                    nearest(kernel[..., c], basis[:, c], (-1, 1))
                    for c in range(kernel.shape[-1])
                ],
                axis=-1,
            )
        return tf.nn.conv2d(x, kernel, stride, "SAME")

    def quantize(self, x, scope):
        basis = self.variables[f"{scope}/ActivationQuantization/basis"][:, 0]
        return tf.constant(nearest(x.numpy(), basis, (0, 1)))

    def bn(self, x, scope):
        gamma, beta, mean, variance = (
            self.variables[f"{scope}/{name}"]
            for name in ("gamma", "beta", "mean/EMA", "variance/EMA")
        )
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta


def nearest(x, basis, bits):
    """Every element replaced by the nearest of all sums of the basis."""
    codes = np.array(list(itertools.product(bits, repeat=len(basis))))
    levels = np.sort(codes @ basis.astype(np.float64))
    borders = ((levels[1:] + levels[:-1]) / 2).astype(np.float32)
    return levels[np.searchsorted(borders, x, side="left")].astype(np.float32)
