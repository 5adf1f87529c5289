"""ResNet-18, -50 and MobileNetV2 from their state dicts, with PyTorch's functions.

Written from He et al. (CVPR 2016) and Sandler et al. (CVPR 2018); nothing of this
package is used. Compared once with torchvision 0.28 and timm 1.0.31: keys and shapes
are theirs, and so are the logits, bit for bit.
"""

import numpy as np

_DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
# expansion, channels, blocks, stride
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv(out, inputs, side):
    return (out, inputs, side, side)


def resnet_shapes(depth, classes, base=8):
    """{key: shape}; `base` channels in the first stage, of 64."""
    shapes = {"conv1.weight": _conv(base, 3, 7)} | _norm("bn1", base)
    channels, basic = base, depth == 18
    for stage, count in enumerate(_DEPTHS[depth]):
        width = base * 2**stage
        out = width if basic else 4 * width
        for index in range(count):
            name = f"layer{stage + 1}.{index}"
            sizes = (
                [(width, channels, 3), (width, width, 3)]
                if basic
                else [(width, channels, 1), (width, width, 3), (out, width, 1)]
            )
            for n, size in enumerate(sizes, 1):
                shapes[f"{name}.conv{n}.weight"] = _conv(*size)
                shapes |= _norm(f"{name}.bn{n}", size[0])
            if index == 0 and (stage > 0 or channels != out):
                shapes[f"{name}.downsample.0.weight"] = _conv(out, channels, 1)
                shapes |= _norm(f"{name}.downsample.1", out)
            channels = out
    return shapes | {"fc.weight": (classes, channels), "fc.bias": (classes,)}


def mobilenet_names(timm):
    """[(conv, norm, stride, groups?, activation?) of each layer, block ends]."""
    names = [["conv_stem", "bn1"] if timm else ["features.0.0", "features.0.1"]]
    block = 0
    for stage, (expansion, _, count, _) in enumerate(_STAGES):
        for index in range(count):
            block += 1
            if timm and expansion == 1:
                layers = [["conv_dw", "bn1"], ["conv_pw", "bn2"]]
            elif timm:
                layers = [["conv_pw", "bn1"], ["conv_dw", "bn2"], ["conv_pwl", "bn3"]]
            elif expansion == 1:
                layers = [["conv.0.0", "conv.0.1"], ["conv.1", "conv.2"]]
            else:
                layers = [["conv.0.0", "conv.0.1"], ["conv.1.0", "conv.1.1"]]
                layers.append(["conv.2", "conv.3"])
            prefix = f"blocks.{stage}.{index}" if timm else f"features.{block}"
            names.append([[f"{prefix}.{part}" for part in pair] for pair in layers])
    names.append(["conv_head", "bn2"] if timm else ["features.18.0", "features.18.1"])
    return names


def mobilenet_shapes(classes, timm):
    stem, *blocks, last = mobilenet_names(timm)
    shapes = {f"{stem[0]}.weight": _conv(32, 3, 3)} | _norm(stem[1], 32)
    channels, blocks = 32, iter(blocks)
    for expansion, out, count, _ in _STAGES:
        for _ in range(count):
            hidden = channels * expansion
            sizes = [_conv(hidden, 1, 3), _conv(out, hidden, 1)]
            sizes = [_conv(hidden, channels, 1)] * (expansion > 1) + sizes
            for (conv, norm), size in zip(next(blocks), sizes, strict=True):
                shapes |= {f"{conv}.weight": size} | _norm(norm, size[0])
            channels = out
    shapes |= {f"{last[0]}.weight": _conv(1280, 320, 1)} | _norm(last[1], 1280)
    head = "classifier" if timm else "classifier.1"
    return shapes | {f"{head}.weight": (classes, 1280), f"{head}.bias": (classes,)}


def _norm(name, channels):
    keys = ("weight", "bias", "running_mean", "running_var")
    counter = {f"{name}.num_batches_tracked": ()}
    return {f"{name}.{key}": (channels,) for key in keys} | counter


def draw(shapes, seed=0):
    """{key: float32 array}, scaled so that activations keep their size."""
    generator = np.random.default_rng(seed)
    found = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            found[key] = np.int64(7)
        elif key.endswith("running_var"):
            found[key] = generator.uniform(0.5, 1.5, shape).astype("float32")
        elif len(shape) > 1:
            scale = np.sqrt(2 / np.prod(shape[1:]))
            found[key] = (generator.standard_normal(shape) * scale).astype("float32")
        else:
            low = 0.5 if key.endswith(".weight") else -0.1
            found[key] = generator.uniform(low, low + 0.5, shape).astype("float32")
    return found


def resnet_logits(state, images, depth):
    """(N, 3, H, W) -> logits; bottlenecks stride on their 3x3 convolution."""
    import torch.nn.functional as f

    def layer(x, conv, norm, **options):
        return _normalized(state, f.conv2d(x, state[f"{conv}.weight"], **options), norm)

    x = f.relu(layer(images, "conv1", "bn1", stride=2, padding=3))
    x = f.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(_DEPTHS[depth]):
        for index in range(count):
            name = f"layer{stage + 1}.{index}"
            stride = 2 if stage and not index else 1
            y = x
            last = 2 if depth == 18 else 3
            for n in range(1, last + 1):
                conv = f"{name}.conv{n}"
                options = {"padding": state[f"{conv}.weight"].shape[-1] // 2}
                options["stride"] = stride if n == last - 1 else 1
                y = layer(y, conv, f"{name}.bn{n}", **options)
                y = f.relu(y) if n < last else y
            if f"{name}.downsample.0.weight" in state:
                side = f"{name}.downsample"
                x = layer(x, f"{side}.0", f"{side}.1", stride=stride)
            x = f.relu(x + y)
    return f.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])


def mobilenet_logits(state, images, timm):
    import torch.nn.functional as f

    def layer(x, pair, stride=1, activation=True):
        kernel = state[f"{pair[0]}.weight"]
        depthwise = kernel.shape[1] == 1
        options = {"groups": x.shape[1] if depthwise else 1, "stride": stride}
        y = f.conv2d(x, kernel, padding=kernel.shape[-1] // 2, **options)
        y = _normalized(state, y, pair[1])
        return f.relu6(y) if activation else y

    stem, *blocks, last = mobilenet_names(timm)
    x, blocks = layer(images, stem, 2), iter(blocks)
    for expansion, _, count, first in _STAGES:
        for index in range(count):
            *before, depthwise, project = ([], *next(blocks))
            y = layer(x, before[-1]) if expansion > 1 else x
            y = layer(y, depthwise, first if index == 0 else 1)
            y = layer(y, project, activation=False)
            x = x + y if index else y
    x = layer(x, last).mean(dim=(2, 3))
    head = "classifier" if timm else "classifier.1"
    return f.linear(x, state[f"{head}.weight"], state[f"{head}.bias"])


def _normalized(state, x, name):
    import torch.nn.functional as f

    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return f.batch_norm(
        x, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"]
    )
