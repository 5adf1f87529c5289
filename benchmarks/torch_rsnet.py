"""RS-ResNet-18 in PyTorch, written from the paper: the yardstick of train_step.py.

Wang et al., Resolution Switchable Networks for Runtime Efficient Image Recognition,
ECCV 2020. Convolutions and the classifier are shared by all resolutions, batch
normalization is private to each; the loss is multi-resolution ensemble distillation,
Eq. (10). Inputs are RGB in [0, 1], NCHW.

    python benchmarks/torch_rsnet.py --steps=5 --threads=2

prints one JSON line with the median time of a training step.
"""

import argparse
import json
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
BLOCKS_PER_STAGE = 2


class PrivateNorm(nn.ModuleDict):
    """One BatchNorm2d for each resolution."""

    def __init__(self, resolutions, channels):
        super().__init__({str(r): nn.BatchNorm2d(channels) for r in resolutions})

    def forward(self, x, resolution):
        return self[str(resolution)](x)


class ConvNorm(nn.Module):
    """A shared convolution without bias, then the normalization of a resolution."""

    def __init__(self, resolutions, inputs, outputs, kernel, stride):
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, bias=False
        )
        self.norm = PrivateNorm(resolutions, outputs)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x, resolution):
        return self.norm(self.conv(x), resolution)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, resolutions, inputs, outputs, stride):
        super().__init__()
        self.first = ConvNorm(resolutions, inputs, outputs, 3, stride)
        self.second = ConvNorm(resolutions, outputs, outputs, 3, 1)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = ConvNorm(resolutions, inputs, outputs, 1, stride)

    def forward(self, x, resolution):
        y = F.relu(self.first(x, resolution), inplace=True)
        y = self.second(y, resolution)
        if self.shortcut is not None:
            x = self.shortcut(x, resolution)
        return F.relu(y + x, inplace=True)


class RSResNet18(nn.Module):
    """`model(x, resolution)` returns logits (N, num_classes)."""

    def __init__(self, resolutions, num_classes):
        super().__init__()
        self.resolutions = tuple(sorted(resolutions, reverse=True))
        self.stem = ConvNorm(self.resolutions, 3, STAGES[0][0], 7, 2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = nn.ModuleList()
        inputs = STAGES[0][0]
        for outputs, stage_stride in STAGES:
            for position in range(BLOCKS_PER_STAGE):
                stride = stage_stride if position == 0 else 1
                self.blocks.append(
                    ResidualBlock(self.resolutions, inputs, outputs, stride)
                )
                inputs = outputs
        self.head = nn.Linear(inputs, num_classes)
        self.alpha = nn.Parameter(torch.ones(len(self.resolutions)))

    def forward(self, x, resolution):
        x = self.pool(F.relu(self.stem(x, resolution), inplace=True))
        for block in self.blocks:
            x = block(x, resolution)
        return self.head(x.mean(dim=(2, 3)))


def distillation_loss(logits, labels, alpha):
    """Eq. (10): {"loss", "classification", "ensemble", "distillation"}.

    Every teacher is detached: the ensemble's loss moves alpha only, the others move
    the network only.

    Args:
        logits: list of (N, C), from the largest resolution to the smallest.
        labels: (N,) class indices.
        alpha: (S,) the weights of the ensemble before the softmax.
    """
    classification = sum(F.cross_entropy(z, labels) for z in logits)
    shares = torch.softmax(alpha, dim=0)
    mixed = sum(share * z.detach() for share, z in zip(shares, logits, strict=True))
    ensemble = F.cross_entropy(mixed, labels)
    log_p = [F.log_softmax(z, dim=1) for z in logits]
    teachers = [F.log_softmax(mixed.detach(), dim=1)] + [p.detach() for p in log_p]
    # Student j learns from the ensemble and from every larger resolution.
    distillation = sum(
        F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        for j, student in enumerate(log_p)
        for teacher in teachers[: j + 1]
    )
    distillation = distillation * (2.0 / (len(logits) + 1))
    return {
        "loss": classification + ensemble + distillation,
        "classification": classification,
        "ensemble": ensemble,
        "distillation": distillation,
    }


def build(resolutions, num_classes, channels_last=True):
    """A network in training mode, in the memory format that is fast on a CPU."""
    model = RSResNet18(resolutions, num_classes)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model.train()


def sgd(model, learning_rate=0.1, momentum=0.9, weight_decay=1e-4):
    """SGD of the paper: no Nesterov, weight decay in the gradient of everything."""
    return torch.optim.SGD(
        model.parameters(),
        lr=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
    )


def train_step(model, optimizer, images, labels):
    """One step on {resolution: images}; returns the loss before the update."""
    optimizer.zero_grad(set_to_none=True)
    logits = [model(images[r], r) for r in model.resolutions]
    loss = distillation_loss(logits, labels, model.alpha)["loss"]
    loss.backward()
    optimizer.step()
    return loss.item()


class Stepper:
    """Steps of one network on one random batch; `step()` returns seconds."""

    def __init__(self, resolutions, num_classes, batch_size, threads, channels_last):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self._model = build(resolutions, num_classes, channels_last)
        self._optimizer = sgd(self._model)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self._images = {
            r: torch.rand(batch_size, 3, r, r).contiguous(memory_format=layout)
            for r in resolutions
        }
        self._labels = torch.randint(num_classes, (batch_size,))

    def step(self):
        start = time.perf_counter()
        train_step(self._model, self._optimizer, self._images, self._labels)
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--resolutions", default="224,192,160,128,96")
    parser.add_argument("--num_classes", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--layout", choices=("nhwc", "nchw"), default="nhwc")
    parser.add_argument(
        "--serve",
        action="store_true",
        help="answer each line of stdin with the seconds of one step (train_step.py)",
    )
    arguments = parser.parse_args()
    resolutions = [int(r) for r in arguments.resolutions.split(",")]
    stepper = Stepper(
        resolutions,
        arguments.num_classes,
        arguments.batch_size,
        arguments.threads,
        channels_last=arguments.layout == "nhwc",
    )
    if arguments.serve:
        print(json.dumps({"torch": torch.__version__}), flush=True)
        for _ in sys.stdin:
            print(json.dumps(stepper.step()), flush=True)
        return
    stepper.step()
    seconds = [stepper.step() for _ in range(arguments.steps)]
    report = {
        "benchmark": "torch_rsnet",
        "resolutions": resolutions,
        "batch_size": arguments.batch_size,
        "threads": arguments.threads,
        "layout": arguments.layout,
        "seconds": round(statistics.median(seconds), 4),
        "steps": [round(s, 4) for s in seconds],
        "torch": torch.__version__,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
