"""What connects quantizers, which know no resolution, with the fan-out."""

import keras
from keras import ops

from quant import quantizers
from rs_keras import resolutions as resolutions_lib
from rs_keras.layers import switchable_norm

BASIS_UPDATES = ("once", "per_resolution")
ACTIVATION_BASES = ("shared", "private", "largest")
FLOAT_BITS = 32


@keras.saving.register_keras_serializable(package="rs_keras")
class Bases:
    """Which basis a resolution uses, and when in a training step bases are fitted.

    Args:
        resolutions, views: as of `SwitchableBatchNormalization`.
        basis_updates: "once": one fit a step, after the last forward pass; all
            resolutions see the same bases, and those of activations are fitted to what
            all of them saw. "per_resolution" (the reference): a fit with each forward
            pass, from the largest resolution to the smallest, each of which finds the
            bases that the one before it left.
        activation_basis: "shared": one for all resolutions; "private": one for each,
            fitted to it alone; "largest": one for all, fitted to the largest.
    """

    def __init__(
        self, resolutions, views=1, basis_updates="once", activation_basis="shared"
    ):
        for name, value, allowed in (
            ("basis_updates", basis_updates, BASIS_UPDATES),
            ("activation_basis", activation_basis, ACTIVATION_BASES),
        ):
            if value not in allowed:
                raise ValueError(
                    f"`{name}` must be one of {allowed}. Received: {name}={value!r}"
                )
        self.resolutions = resolutions_lib.check_resolutions(resolutions, views=views)
        self.views = views
        self.keys = resolutions_lib.branch_keys(self.resolutions, views)
        self.basis_updates = basis_updates
        self.activation_basis = activation_basis

    @property
    def rows(self):
        """How many bases an activation quantizer has."""
        return len(self.keys) if self.activation_basis == "private" else 1

    def for_weights(self, resolution, training):
        """Call arguments of a layer with a quantized kernel."""
        update = self._update(self._key(resolution), training)
        return {"update": "fit" if update == "fit" else None}

    def for_activations(self, quantizer, resolution, training):
        """Call arguments of an activation quantizer, or of a range."""
        key = self._key(resolution)
        update = self._update(key, training)
        if is_range(quantizer):
            # One for all, moved by each.
            return {"update": update}
        if self.activation_basis == "private":
            return {"row": self._row(key), "update": update and "fit"}
        if self.activation_basis == "largest":
            largest = update and key == self.keys[0]
            return {"row": 0, "update": "fit" if largest else None}
        return {"row": 0, "update": update}

    def get_config(self):
        return {
            "resolutions": self.resolutions,
            "views": self.views,
            "basis_updates": self.basis_updates,
            "activation_basis": self.activation_basis,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def _key(self, resolution):
        return self.keys[0] if resolution is None else resolution

    def _update(self, key, training):
        # A batch normalization refuses to train at a resolution without a row.
        if not training or ops.is_tensor(key) or key not in self.keys:
            return None
        if self.basis_updates == "per_resolution" or key == self.keys[-1]:
            return "fit"
        return "collect"

    def _row(self, key):
        if not ops.is_tensor(key) and key in self.keys:
            return self.keys.index(key)
        return switchable_norm.neighbours(key, self.resolutions)


class Quantization:
    """Makes the quantizers of one network; `bases` says when they are fitted.

    Args:
        weight_bits, activation_bits: 1..8, or 32 for none.
        bases: `Bases`.
        options: dict of further arguments of the quantizers (`momentum`,
            `zero_debias`).
        rest: `Rest`, or None to leave in float what LQ-Nets do.
    """

    def __init__(self, weight_bits, activation_bits, bases, options=None, rest=None):
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.bases = bases
        self.options = options or {}
        self.rest = rest

    def of_kernel(self, name):
        """A weight quantizer, or None."""
        if self.weight_bits == FLOAT_BITS:
            return None
        return quantizers.LQWeightQuantizer(self.weight_bits, name=name, **self.options)

    def of_activations(self, name):
        """An activation quantizer, or None."""
        if self.activation_bits == FLOAT_BITS:
            return None
        return quantizers.LQActivationQuantizer(
            self.activation_bits, rows=self.bases.rows, name=name, **self.options
        )

    def of_range(self, name, signed):
        """A quantizer of a tensor that LQ-Nets leave float, or None."""
        return self.rest and self.rest.of_range(name, signed)


class Rest:
    """Makes the quantizers of what LQ-Nets leave float, all of the same bits.

    For a layer that LQ-Nets do not quantize it takes the place of `Quantization`.
    """

    def __init__(self, bits, bases):
        self.bits = bits
        self.bases = bases

    def of_kernel(self, name):
        return tfmot_bridge().RangeWeightQuantizer(self.bits, name=name)

    def of_activations(self, name):
        return None

    def of_range(self, name, signed):
        ends = (-6.0, 6.0) if signed else (0.0, 6.0)
        return tfmot_bridge().RangeQuantizer(self.bits, ends, name=name)


def tfmot_bridge():
    """`quant.tfmot`, imported where it is needed: it takes seconds, and TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`rest_bits` need the TensorFlow backend. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    from quant import tfmot

    return tfmot


def quantization(
    resolutions,
    views,
    weight_bits,
    activation_bits,
    *,
    basis_updates="once",
    activation_basis="shared",
    options=None,
    rest_bits=32,
):
    """The `Quantization` of a network; with 32/32 bits None.

    Raises:
        ValueError: bits other than 1..8 or 32, `rest_bits` other than 8 or 32, or
            activations or the rest without weights.
    """
    for name, bits in (("weight", weight_bits), ("activation", activation_bits)):
        if not resolutions_lib.is_integer(bits) or bits not in (*range(1, 9), 32):
            raise ValueError(
                f"`{name}_bits` must be 1 to 8, or 32 for none. "
                f"Received: {name}_bits={bits!r}"
            )
    if weight_bits == FLOAT_BITS and activation_bits != FLOAT_BITS:
        raise ValueError(
            "`activation_bits` go with quantized weights only: LQ-Nets have no recipe "
            f"with float weights. Received: weight_bits={weight_bits}, "
            f"activation_bits={activation_bits}"
        )
    if rest_bits not in (8, FLOAT_BITS) or (
        rest_bits != FLOAT_BITS and weight_bits == FLOAT_BITS
    ):
        raise ValueError(
            "`rest_bits` must be 8, with quantized weights, or 32 for none. "
            f"Received: rest_bits={rest_bits!r}, weight_bits={weight_bits}"
        )
    bases = Bases(resolutions, views, basis_updates, activation_basis)
    if weight_bits == FLOAT_BITS:
        return None
    rest = None if rest_bits == FLOAT_BITS else Rest(rest_bits, bases)
    return Quantization(weight_bits, activation_bits, bases, options, rest)


def is_quantized(layer):
    """Whether a layer reads its kernel through a quantizer of LQ-Nets."""
    quantizer = getattr(layer, "weight_quantizer", None)
    return isinstance(quantizer, quantizers.LQWeightQuantizer)


def quantized(x, layer, resolution, training):
    """x as the quantizer of a layer leaves it; as it is where there is none."""
    if layer.quantizer is None:
        return x
    call = layer.bases.for_activations(layer.quantizer, resolution, training)
    return layer.quantizer(x, **call)


def is_range(layer):
    """Whether a layer is a `RangeQuantizer`: by name, not to import its module."""
    return type(layer).__name__ == "RangeQuantizer"
