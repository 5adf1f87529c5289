"""State dicts of ordinary networks, as torchvision and timm name them.

Their weights were trained at one resolution: every row of a batch normalization starts
as the one that is there.
"""

import re

from rs_keras.checkpoints import torch_names

# The scaling of the images that these collections train with.
SCALING = "imagenet"
# MobileNetV2: positions in the reference's Sequential of a block -> torchvision's.
_WITHOUT_EXPANSION = {0: "0.0", 1: "0.1", 3: "1", 4: "2"}
_WITH_EXPANSION = {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1", 6: "2", 7: "3"}
# ... -> timm's.
_TIMM_FIRST = {0: "conv_dw", 1: "bn1", 3: "conv_pw", 4: "bn2"}
_TIMM_OTHERS = {
    0: "conv_pw",
    1: "bn1",
    3: "conv_dw",
    4: "bn2",
    6: "conv_pwl",
    7: "bn3",
}
# Blocks in each of timm's stages.
_TIMM_STAGES = (1, 2, 3, 4, 3, 3, 1)


def slots(model, keys):
    """Every array of a plain state dict, as `torch_names.slots`.

    Args:
        model: `Classifier`.
        keys: of the state dict, which tell one collection from the other.
    """
    timm = "conv_stem.weight" in keys
    for key, variable, row, axes in torch_names.slots(model):
        if key != "alpha":
            layer, _, weight = re.sub(r"\.(module|bn_\d+)\.", "..", key).partition("..")
            yield f"{_name(layer, timm)}.{weight}", variable, row, axes


def is_official(keys):
    """Whether keys are those of the authors' code."""
    return any(".module." in key or ".bn_0." in key for key in keys)


def _name(layer, timm):
    """torchvision's or timm's name of a layer; ResNets have one for both."""
    match = re.fullmatch(r"features\.(\d+)\.conv\.(\d+)", layer)
    if match is None:
        others = {"conv.0": "features.18.0", "conv.1": "features.18.1"}
        others["classifier"] = "classifier.1"
        if timm:
            others = {"features.0.0": "conv_stem", "features.0.1": "bn1"}
            others |= {"conv.0": "conv_head", "conv.1": "bn2"}
        return others.get(layer, layer)
    block, position = int(match[1]), int(match[2])
    if not timm:
        table = _WITHOUT_EXPANSION if block == 1 else _WITH_EXPANSION
        return f"features.{block}.conv.{table[position]}"
    stage, first = 0, 1
    while block >= first + _TIMM_STAGES[stage]:
        first += _TIMM_STAGES[stage]
        stage += 1
    table = _TIMM_FIRST if block == 1 else _TIMM_OTHERS
    return f"blocks.{stage}.{block - first}.{table[position]}"
