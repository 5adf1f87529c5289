"""Stochastic gradient descent as PyTorch and TensorFlow 1 define it."""

import keras
from keras import ops

DECAY_SCOPES = ("all", "kernels")


@keras.saving.register_keras_serializable(package="rs_keras")
class SGD(keras.optimizers.Optimizer):
    """SGD with momentum and coupled weight decay.

    `g <- g + weight_decay * p;  v <- momentum * v + g;  p <- p - lr * v`
    (Nesterov: `p <- p - lr * (g + momentum * v)`.)

    Two things differ from `keras.optimizers.SGD`, and both change results. Weight
    decay is added to the gradient, so it passes through the momentum; Keras takes it
    off the weights directly. The learning rate stays outside the velocity; Keras
    keeps it inside, which differs as soon as the rate changes from step to step.

    Args:
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: in [0, 1).
        weight_decay: coefficient of the decay, at least 0.
        nesterov: look-ahead form of the momentum.
        decay_scope: "all" decays every trainable weight, also gamma, beta, biases and
            alpha (the RS-Nets reference); "kernels" only those of convolutions and
            dense layers (the LQ-Nets reference).

    Raises:
        ValueError: an argument outside the ranges above.
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=0.0,
        nesterov=False,
        decay_scope="all",
        name="SGD",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(
                f"`momentum` must be in [0, 1). Received: momentum={momentum}"
            )
        if not weight_decay >= 0:
            raise ValueError(
                f"`weight_decay` must be at least 0. Received: {weight_decay=}"
            )
        if decay_scope not in DECAY_SCOPES:
            raise ValueError(
                f"`decay_scope` must be one of {DECAY_SCOPES}. "
                f"Received: decay_scope={decay_scope!r}"
            )
        self.momentum = momentum
        # Not `self.weight_decay`: Keras would apply that one, decoupled.
        self.coupled_weight_decay = weight_decay
        self.nesterov = nesterov
        self.decay_scope = decay_scope

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")
        # By Keras' names: `update_step` gets TensorFlow's variables, named "kernel:0".
        self._decays = [
            self.decay_scope == "all" or v.name.endswith("kernel") for v in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        if self.coupled_weight_decay and self._decays[index]:
            gradient = gradient + self.coupled_weight_decay * variable
        if not self.momentum:
            self.assign_sub(variable, rate * gradient)
            return
        velocity = self.velocities[index]
        new = self.momentum * velocity + gradient
        self.assign(velocity, new)
        step = gradient + self.momentum * new if self.nesterov else new
        self.assign_sub(variable, rate * step)

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.coupled_weight_decay,
            "nesterov": self.nesterov,
            "decay_scope": self.decay_scope,
        }
