"""The pre-activation blocks of ResNets with quantized weights and activations.

He et al., Identity Mappings in Deep Residual Networks, ECCV 2016, in the variant of the
LQ-Nets reference (Zhang et al., ECCV 2018), which RS-Nets share: every convolution but
the first keeps a batch normalization behind it as well, nothing follows the sum, and
each quantizer stands right before the convolutions that it feeds.
"""

from rs_keras.layers import conv_bn
from rs_keras.layers import preactivation


def block(
    kind,
    filters,
    filters_out,
    *,
    conv,
    norm,
    stride,
    channels,
    name,
    zero_init_residual,
    shortcut,
    first,
):
    """One block: [batch normalization, ReLU, quantizer], convolutions, shortcut.

    The first block of a group starts without normalization. In the first group, and in
    every group if shortcuts are of type A, it quantizes what its convolutions see and
    leaves the shortcut float; in the others the end of the group before has quantized
    the input of both.
    """
    low_bit = conv.keywords["low_bit"]

    def layer(index, *args, quantized=False, **options):
        return conv(
            *args,
            name=f"{name}.conv{index}",
            norm_name=f"{name}.bn{index}",
            activation="relu" if quantized else None,
            output_name=f"{name}.quant{index + 1}" if quantized else None,
            **options,
        )

    branch = []
    if not first or stride == 1 or shortcut == "A":
        branch.append(
            preactivation.Preactivation(
                None if first else norm(f"{name}.preact"),
                low_bit.of_activations(f"{name}.quant1"),
                low_bit.bases,
                name=f"{name}.preactivation",
            )
        )
    options = {}
    if zero_init_residual:
        options["norm"] = lambda name: norm(name, gamma_initializer="zeros")
    if kind == "basic":
        branch.append(layer(1, filters, 3, stride, quantized=True))
        branch.append(layer(2, filters_out, 3, **options))
    else:
        branch.append(layer(1, filters, 1, quantized=True))
        branch.append(layer(2, filters, 3, stride, quantized=True))
        branch.append(layer(3, filters_out, 1, **options))
    side = preactivation.shortcut_branch(
        conv,
        shortcut,
        filters_out,
        stride=stride,
        channels=channels,
        name=name,
        low_bit=low_bit,
    )
    return conv_bn.residual_block(branch, side, low_bit=low_bit, name=name)


def group_end(low_bit, norm, name, quantized):
    """What follows the last block of a group: normalization, ReLU, quantizer."""
    return preactivation.Preactivation(
        norm(f"{name}.last"),
        low_bit.of_activations(f"{name}.quant_last")
        if quantized
        else low_bit.of_range(f"{name}.range", signed=False),
        low_bit.bases,
        name=f"{name}.end",
    )
