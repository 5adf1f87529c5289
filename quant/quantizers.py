"""LQ-Nets' quantizers as layers: a basis and the moving average that it follows.

Zhang et al., LQ-Nets, ECCV 2018, section 3.3: a forward pass in training quantizes with
the stored basis, fits a new one to what it has just seen (one step of QEM) and lets the
stored one follow it by a moving average of factor 0.9.
"""

import numpy as np
from keras import layers
from keras import ops
from keras import saving

from quant import lq_math

UPDATES = (None, "collect", "fit")
# How many fits a basis without its moving average counts for: so many that the
# correction for the average's start at zero is 1, whatever the momentum.
_SETTLED = 1e30


class _Quantizer(layers.Layer):
    """What both quantizers share: the basis, its average, and when it moves.

    The average is zero-debiased, as the reference runs it (TensorFlow 1's default):
    `biased <- 0.9 * biased + 0.1 * new; basis = biased / (1 - 0.9**t)`, so that the
    first fit replaces the initial basis. `biased` and t are weights as well: without
    them the first step after a reload would overwrite the basis.
    """

    kind = None

    def __init__(self, bits, momentum=0.9, zero_debias=True, *, rows=1, **kwargs):
        # The arithmetic is float32 in every precision, so inputs are not cast down.
        kwargs = {"dtype": "float32", **kwargs, "autocast": False}
        super().__init__(**kwargs)
        lq_math.check_bits(bits)
        if not 0 <= momentum < 1:
            raise ValueError(
                f"`momentum` must be in [0, 1). Received: momentum={momentum}"
            )
        self.bits = int(bits)
        self.momentum = momentum
        self.zero_debias = bool(zero_debias)
        self.rows = rows

    def get_config(self):
        return {
            **super().get_config(),
            "bits": self.bits,
            "momentum": self.momentum,
            "zero_debias": self.zero_debias,
        }

    def compute_output_shape(self, input_shape):
        return input_shape

    def settle(self):
        """Lets the average go on from the basis as if it had always been there."""
        # A copy: on JAX the two would share a buffer, which may be given away.
        self.biased.assign(np.array(self.basis))
        self.fits.assign(np.full(self.fits.shape, _SETTLED, "float32"))

    def _add_basis(self, initial):
        """Creates the variables; initial (K, C) is the basis of every row."""
        shape = (self.rows, *initial.shape)

        def variable(name, shape, initializer):
            return self.add_weight(
                name=name,
                shape=shape,
                initializer=initializer,
                trainable=False,
                autocast=False,
                # Replicas of a distribution strategy keep one basis in common.
                aggregation="mean",
            )

        def start(shape, dtype=None):
            return ops.cast(np.broadcast_to(initial, shape), dtype)

        self.basis = variable("basis", shape, start)
        self.biased = variable("biased", shape, "zeros")
        self.fits = variable("fits", (self.rows,), "zeros")

    def _follow(self, new, row):
        """Lets the stored basis of a row follow a fitted one (K, C)."""
        decay = self.momentum
        moved = decay * self._row(self.basis, row) + (1 - decay) * new
        if self.zero_debias:
            fits = self._row(self.fits, row) + 1
            average = decay * self._row(self.biased, row) + (1 - decay) * new
            moved = average / (1 - decay**fits)
            self._assign_row(self.biased, row, average)
            self._assign_row(self.fits, row, fits)
        self._assign_row(self.basis, row, moved)

    def _row(self, variable, row):
        # Not an index where there is one row: a graph would slice with four nodes.
        return ops.squeeze(variable, 0) if self.rows == 1 else variable[row]

    def _assign_row(self, variable, row, value):
        value = ops.expand_dims(value, 0)
        if self.rows > 1:
            mine = (np.arange(self.rows) == row).reshape(
                -1, *[1] * (len(value.shape) - 1)
            )
            # A value, because JAX' where takes no Keras variables.
            value = ops.where(mine, value, ops.convert_to_tensor(variable))
        variable.assign(value)


@saving.register_keras_serializable(package="quant")
class LQWeightQuantizer(_Quantizer):
    """Quantizes a kernel to 2**bits levels, with a basis for each channel.

    Args:
        bits: 1..8.
        momentum: share of the old moving average that an update keeps.
        zero_debias: correct the average for its start at zero (the reference); False
            keeps 90% of the initial basis after the first step.

    Call arguments:
        kernel: tensor with its output channels last.
        update: None, or "fit" to fit the basis to this kernel after quantizing it.

    Returns:
        float32 tensor as `kernel`, whose elements are levels of their channel.

    Raises:
        ValueError: bits, momentum or update out of range.
    """

    kind = "weights"

    def build(self, kernel_shape):
        fan_out = int(np.prod(kernel_shape[:-2])) * kernel_shape[-1]
        initial = lq_math.initial_basis(self.kind, self.bits, fan_out)
        # Broadcast: a layer that is built without values then allocates nothing.
        shape = (self.bits, kernel_shape[-1])
        self._add_basis(np.broadcast_to(initial[:, None], shape))

    def call(self, kernel, update=None):
        check_update(update)
        kernel = ops.cast(kernel, "float32")
        basis = self._row(self.basis, 0)
        if update == "fit":
            self._follow(lq_math.fit_basis(kernel, basis, self.kind), row=0)
        return lq_math.quantize(kernel, basis, self.kind)


@saving.register_keras_serializable(package="quant")
class LQActivationQuantizer(_Quantizer):
    """Quantizes non-negative activations to 2**bits levels, 0 among them.

    Args:
        bits, momentum, zero_debias: as in `LQWeightQuantizer`.
        rows: number of bases; 1 is shared by whatever is quantized.

    Call arguments:
        x: tensor, as a ReLU leaves it.
        row: which basis: an int, or (upper, lower, weight) for the mixture
            `weight * basis[upper] + (1 - weight) * basis[lower]`.
        update: None; "collect" (with one row) to add what a fit needs of this tensor to
            what has been collected; "fit" to do so, fit the basis and start anew.

    Returns:
        Tensor as x, in its dtype, whose elements are levels.

    Raises:
        ValueError: an argument out of range.
    """

    kind = "activations"

    def __init__(self, bits, momentum=0.9, zero_debias=True, rows=1, **kwargs):
        super().__init__(bits, momentum, zero_debias, rows=rows, **kwargs)
        if rows < 1:
            raise ValueError(f"`rows` must be at least 1. Received: rows={rows}")

    def build(self, input_shape):
        self._add_basis(lq_math.initial_basis(self.kind, self.bits)[:, None])
        # The sums of `lq_math.statistics` over the forward passes of a step.
        k = self.bits
        self.collected = [
            self.add_weight(
                name=f"collected_{name}",
                shape=shape,
                initializer="zeros",
                trainable=False,
                autocast=False,
                # Of the replicas of a distribution strategy: a fit takes no notice of
                # the scale of its sums.
                aggregation="mean",
            )
            for name, shape in (
                ("gram", (1, k, k)),
                ("residual", (1, k)),
                ("count", ()),
            )
        ]

    def call(self, x, row=0, update=None):
        check_update(update)
        wide = ops.cast(x, "float32")
        basis = self._basis_of(row)
        if update is not None:
            if not isinstance(row, int):
                raise ValueError(
                    f"An update needs `row` as an int. Received: row={row!r}"
                )
            if update == "collect" and self.rows > 1:
                raise ValueError(
                    "Only a basis that is shared collects. Received: "
                    f"update={update!r} with rows={self.rows}"
                )
            self._update(wide, basis, row, update)
        return ops.cast(lq_math.quantize(wide, basis, self.kind), x.dtype)

    def get_config(self):
        return {**super().get_config(), "rows": self.rows}

    def _basis_of(self, row):
        if isinstance(row, int):
            return self._row(self.basis, row)
        upper, lower, weight = row
        return weight * ops.take(self.basis, upper, axis=0) + (1 - weight) * ops.take(
            self.basis, lower, axis=0
        )

    def _update(self, x, basis, row, update):
        sums = lq_math.statistics(x, basis, self.kind)
        if self.rows > 1:  # private rows never share what they saw
            self._follow(lq_math.solve_basis(*sums, basis, self.kind), row)
            return
        for total, value in zip(self.collected, sums, strict=True):
            total.assign(total + value)
        if update == "fit":
            # Not of `sums`: the variables have those of all replicas.
            sums = [ops.convert_to_tensor(total) for total in self.collected]
            self._follow(lq_math.solve_basis(*sums, basis, self.kind), row)
            for total in self.collected:
                total.assign(np.zeros(total.shape, "float32"))


def check_update(update):
    if update not in UPDATES:
        raise ValueError(
            f"`update` must be one of {UPDATES}. Received: update={update!r}"
        )
