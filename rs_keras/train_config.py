"""What a training run computes: the values of its flags, checked against each other."""

import dataclasses
import itertools
import math
import re

from rs_keras import flag_definitions

# Flags that say how, where or how long a run is computed, not what it computes: another
# start of the run may have others.
_MAY_CHANGE = (
    "activation_memory",
    "checkpoint_every",
    "data_service",
    "distribute",
    "epochs",
    "max_skipped_steps",
    "on_bad_image",
    "on_nan",
    "scan",
    "threads",
)
# What runs did before there were these flags.
_BEFORE = {"resize": "exact"}
# Flags of one start, not of the run.
_NOT_OF_THE_RUN = ("workdir", "resume")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What a training run computes; see the flags of the same names."""

    model: str
    width: float
    weight_bits: int
    activation_bits: int
    rest_bits: int
    shortcut: str
    basis_updates: str
    activation_basis: str
    dataset: str
    scan: str
    on_bad_image: str
    resolutions: tuple
    num_classes: int | None
    method: str
    distillation: str | None
    crops: str
    views: int
    flip: str
    preprocessing: str
    scaling: str | None
    area: tuple
    resize: str
    epochs: int
    batch_size: int
    accumulate: int
    activation_memory: str
    learning_rate: float
    weight_decay: float
    decay_scope: str
    nesterov: bool
    schedule: str
    decay_epochs: tuple | None
    warmup_epochs: float
    precision: str
    jit: bool
    seed: int
    checkpoint_every: int
    on_nan: str
    max_skipped_steps: int
    distribute: str
    synchronized_bn: bool
    data_service: str | None
    threads: int
    init_from: str | None
    resume: str
    workdir: str

    def __post_init__(self):
        self._check_model()
        branches = len(self.resolutions) * self.views
        if self.method == "single" and branches > 1:
            raise ValueError(
                "--method=single trains one resolution. "
                f"Received: --resolutions={as_text(self.resolutions)} "
                f"--views={self.views}"
            )
        if self.method != "single" and branches < 2:
            raise ValueError(
                f"--method={self.method} needs several resolutions (or --views); one "
                "resolution is trained by --method=single. "
                f"Received: --resolutions={as_text(self.resolutions)}"
            )
        if self.method == "shared_bn" and self.views > 1:
            raise ValueError(
                "--method=shared_bn has one batch normalization, --views one for each "
                f"view. Received: --method=shared_bn --views={self.views}"
            )
        if self.method != "rsnet" and self.distillation is not None:
            raise ValueError(
                "--distillation is for --method=rsnet. "
                f"Received: --method={self.method} --distillation={self.distillation}"
            )
        if self.preprocessing != "rsnet" and (
            (self.crops, self.flip, self.views) != ("shared", "per_resolution", 1)
        ):
            raise ValueError(
                f"--preprocessing={self.preprocessing} has its own --crops, --flip and "
                f"--views. Received: --crops={self.crops} --flip={self.flip} "
                f"--views={self.views}"
            )
        if self.resize != "exact" and (
            (self.crops, self.preprocessing) != ("shared", "rsnet")
        ):
            raise ValueError(
                f"--resize={self.resize} makes small images of large ones: it needs "
                "--crops=shared and --preprocessing=rsnet. Received: "
                f"--crops={self.crops} --preprocessing={self.preprocessing}"
            )
        if len(self.area) != 2 or not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(
                "--area must be two numbers 0 < LOW <= HIGH <= 1. "
                f"Received: --area={as_text(self.area)}"
            )
        for name in ("learning_rate", "weight_decay", "width", "warmup_epochs"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(
                    f"--{name} must be a finite number. "
                    f"Received: --{name}={getattr(self, name)}"
                )
        if (self.scan, self.on_bad_image) == ("off", "error"):
            raise ValueError(
                "--on_bad_image=error needs --scan=on. "
                "Received: --scan=off --on_bad_image=error"
            )
        if self.data_service and not re.fullmatch(r"grpc://.+:\d+", self.data_service):
            raise ValueError(
                "--data_service must be grpc://HOST:PORT. "
                f"Received: --data_service={self.data_service}"
            )
        if self.jit and self.distribute != "none":
            raise ValueError(
                "--jit is for one device: TensorFlow's XLA compiles for no more. "
                f"Received: --jit --distribute={self.distribute}"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                "--accumulate must divide --batch_size. Received: "
                f"--accumulate={self.accumulate} --batch_size={self.batch_size}"
            )
        self._check_schedule()
        self._check_bits()

    def _check_model(self):
        if not self.own_network:
            return
        own = {
            "--width": self.width != 1,
            "--rest_bits": self.rest_bits != 32,
            "--method=shared_bn": self.method == "shared_bn",
            "--views": self.views > 1,
            "--scaling": self.scaling is not None,
        }
        for flag, given in own.items():
            if given:
                raise ValueError(
                    f"{flag} is for the networks of this package. "
                    f"Received: --model={self.model} with {flag}"
                )

    def _check_schedule(self):
        steps = self.schedule == "steps"
        if steps != (self.decay_epochs is not None) or (steps and self.warmup_epochs):
            raise ValueError(
                "--schedule=steps needs --decay_epochs and has no --warmup_epochs; "
                f"others have no --decay_epochs. Received: --schedule={self.schedule} "
                f"--decay_epochs={as_text(self.decay_epochs)} "
                f"--warmup_epochs={self.warmup_epochs}"
            )
        ends = (0, *(self.decay_epochs or ()), math.inf)
        if any(a >= b for a, b in itertools.pairwise(ends)):
            raise ValueError(
                "--decay_epochs must be positive and ascending. "
                f"Received: --decay_epochs={as_text(self.decay_epochs)}"
            )
        if not self.warmup_epochs < self.epochs:
            raise ValueError(
                "--warmup_epochs must be less than --epochs. Received: "
                f"--warmup_epochs={self.warmup_epochs} --epochs={self.epochs}"
            )

    def _check_bits(self):
        bits = (
            f"--weight_bits={self.weight_bits} --activation_bits={self.activation_bits}"
        )
        if self.weight_bits == 32 and self.activation_bits != 32:
            raise ValueError(
                "Quantized activations need quantized weights (--weight_bits). "
                f"Received: {bits}"
            )
        if self.weight_bits == 32 and self.rest_bits != 32:
            raise ValueError(
                "--rest_bits need quantized weights (--weight_bits). "
                f"Received: {bits} --rest_bits={self.rest_bits}"
            )
        if self.shortcut == "A" and (
            self.weight_bits == 32 or not self.model.startswith("resnet")
        ):
            raise ValueError(
                "--shortcut=A is for ResNets with quantized weights. "
                f"Received: --model={self.model} {bits}"
            )

    @property
    def own_network(self):
        """Whether --model names a file with a network of the user's own."""
        return self.model not in flag_definitions.MODELS

    @property
    def mode(self):
        """The mode of `MultiResolutionDistillation` that the method stands for."""
        return (self.distillation or "full") if self.method == "rsnet" else "none"

    def flagfile(self):
        """The flags as text that --flagfile reads back, one a line."""
        values = dataclasses.asdict(self)
        return "".join(
            f"--{name}={as_text(value)}\n"
            for name, value in values.items()
            if value is not None and name not in _NOT_OF_THE_RUN
        )

    def differences(self, flagfile):
        """What a workdir's flags.cfg says of another run, as a list of sentences."""
        return [x for name, x in self._compared(flagfile) if name not in _MAY_CHANGE]

    def changes(self, flagfile):
        """What flags.cfg says differently of the same run, as a list of sentences."""
        return [x for name, x in self._compared(flagfile) if name in _MAY_CHANGE]

    def _compared(self, flagfile):
        theirs = _BEFORE | flag_values(flagfile)
        ours = flag_values(self.flagfile())
        return [
            (
                name,
                f"--{name} is {theirs.get(name, 'unset')} there, "
                f"{ours.get(name, 'unset')} here",
            )
            for name in sorted(set(theirs) | set(ours))
            if name not in _NOT_OF_THE_RUN and theirs.get(name) != ours.get(name)
        ]


def flag_values(flagfile):
    """{name: text} of the lines `--name=value`; others are passed over."""
    lines = (line.strip().removeprefix("--") for line in flagfile.splitlines())
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {name: value for name, equals, value in pairs if equals}


def as_text(value):
    """A value as it is written on a command line."""
    if isinstance(value, (tuple, list)):
        return ",".join(str(v) for v in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
