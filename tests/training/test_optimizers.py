"""SGD against PyTorch's, the reference's optimizer, and against closed forms."""

import keras
import numpy as np
import pytest

from rs_keras.training import optimizers

# float32 sums of a dozen terms of size 1.
TOLERANCE = {"rtol": 2e-6, "atol": 2e-6}
RATES = [0.1, 0.01, 0.5, 0.0, 0.2]


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that changes at every step."""

    def __call__(self, step):
        return keras.ops.take(np.float32(RATES), keras.ops.cast(step, "int32"))

    def get_config(self):
        return {}


def gradients(shape):
    generator = np.random.default_rng(3)
    return [generator.standard_normal(shape).astype(np.float32) for _ in RATES]


def variable(value, name="kernel"):
    return keras.Variable(np.asarray(value, np.float32), name=name)


# PyTorch refuses Nesterov without momentum.
@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)]
)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_equal_pytorch_while_the_rate_changes(momentum, decay, nesterov):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference here")
    start = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    ours = variable(start)
    optimizer = optimizers.SGD(
        Rates(), momentum=momentum, weight_decay=decay, nesterov=nesterov
    )
    theirs = torch.nn.Parameter(torch.tensor(start))
    reference = torch.optim.SGD(
        [theirs], lr=1.0, momentum=momentum, weight_decay=decay, nesterov=nesterov
    )
    for rate, gradient in zip(RATES, gradients((4, 3)), strict=True):
        optimizer.apply([keras.ops.array(gradient)], [ours])
        reference.param_groups[0]["lr"] = rate
        theirs.grad = torch.tensor(gradient)
        reference.step()
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), **TOLERANCE)


def test_learning_rate_stays_outside_the_velocity():
    # reference-facts.md, section 0: torch .881, Keras .8.
    p = variable([1.0])
    optimizer = optimizers.SGD(0.1, momentum=0.9)
    for rate in (0.1, 0.01):
        optimizer.learning_rate = rate
        optimizer.apply([keras.ops.ones((1,))], [p])
    np.testing.assert_allclose(p.numpy(), [0.881], rtol=1e-6)


def test_weight_decay_passes_through_the_momentum():
    p = variable([2.0])
    optimizer = optimizers.SGD(0.1, momentum=0.5, weight_decay=0.1)
    zero = keras.ops.zeros((1,))
    optimizer.apply([zero], [p])  # v = .2, p = 1.98
    optimizer.apply([zero], [p])  # v = .1 + .198 = .298, p = 1.9502
    np.testing.assert_allclose(p.numpy(), [1.9502], rtol=1e-6)


@pytest.mark.parametrize(
    ("scope", "decayed"),
    [("all", {"kernel", "bias", "gamma", "beta", "alpha"}), ("kernels", {"kernel"})],
)
def test_decay_scope_selects_the_weights(scope, decayed):
    names = ["kernel", "bias", "gamma", "beta", "alpha"]
    variables = [variable([1.0], name) for name in names]
    optimizer = optimizers.SGD(0.1, momentum=0, weight_decay=0.5, decay_scope=scope)
    optimizer.apply([keras.ops.zeros((1,))] * len(names), variables)
    for v in variables:
        expected = 0.95 if v.name in decayed else 1.0
        np.testing.assert_allclose(v.numpy(), [expected], rtol=1e-6, err_msg=v.name)


def test_kernels_of_convolutions_and_dense_layers_are_decayed():
    layers = [
        keras.layers.Conv2D(2, 3),
        keras.layers.DepthwiseConv2D(3),
        keras.layers.Dense(2),
    ]
    for layer in layers:
        layer.build((None, 8, 8, 3))
        kernel, bias = layer.trainable_variables
        bias.assign(keras.ops.ones_like(bias))
        before = kernel.numpy()
        optimizer = optimizers.SGD(
            0.1, momentum=0, weight_decay=1.0, decay_scope="kernels"
        )
        zeros = [keras.ops.zeros_like(kernel), keras.ops.zeros_like(bias)]
        optimizer.apply(zeros, [kernel, bias])
        np.testing.assert_allclose(kernel.numpy(), 0.9 * before, rtol=1e-6)
        np.testing.assert_array_equal(bias.numpy(), 1.0)


def test_configuration_round_trip_keeps_every_argument():
    optimizer = optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(0.1, 10),
        momentum=0.8,
        weight_decay=1e-4,
        nesterov=True,
        decay_scope="kernels",
        clipnorm=2.0,
    )
    data = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(data)
    assert isinstance(copy, optimizers.SGD)
    assert copy.get_config() == optimizer.get_config()
    assert copy.clipnorm == 2.0
    # Keras would apply an attribute of this name a second time, decoupled.
    assert copy.weight_decay is None
    assert copy.coupled_weight_decay == 1e-4


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"momentum": 1.0}, r"`momentum` must be in \[0, 1\). Received: momentum=1.0"),
        (
            {"momentum": -0.1},
            r"`momentum` must be in \[0, 1\). Received: momentum=-0.1",
        ),
        (
            {"weight_decay": -1.0},
            "`weight_decay` must be at least 0. Received: weight_decay=-1.0",
        ),
        (
            {"decay_scope": "bn"},
            r"`decay_scope` must be one of \('all', 'kernels'\). "
            "Received: decay_scope='bn'",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        optimizers.SGD(0.1, **argument)
