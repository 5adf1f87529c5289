"""Several devices on JAX, by keras.distribution.

One program computes the step of the whole batch, of which each device has a part: batch
normalization, too, has the statistics of all images.
"""

import logging

import jax
import keras
import numpy as np

from rs_keras.training import devices


class JaxDevices(devices.Devices):
    """`Devices` of one process.

    Args:
        distribute: "none", or "mirrored" (all devices that JAX has).
        task: `cluster.Task` of this process.
    """

    def __init__(self, distribute, task):
        super().__init__(task)
        # It tells which kinds of devices are not there.
        logging.getLogger("jax").setLevel(logging.WARNING)
        self.distribution = None
        if distribute == "mirrored":
            self.distribution = keras.distribution.DataParallel(
                devices=keras.distribution.list_devices()
            )
            self.distributed = True
            self.replicas = self.distribution.num_model_replicas

    def scope(self):
        return super().scope() if not self.distributed else self.distribution.scope()

    def step(self, model):
        shardings = None
        if self.distributed:
            # Prefixes of (logs, state): left open, and a whole copy on each device.
            mesh = self.distribution.device_mesh.backend_mesh
            whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
            shardings = (None, whole)
        train = jax.jit(model.train_step, donate_argnums=0, out_shardings=shardings)

        names = [metric.name for metric in model.metrics]  # JAX sorts a dict

        def step(batch, wish):
            groups = _state(model)
            values = [[v.value for v in variables] for variables in groups]
            logs, values = train(values, jax.tree.map(self._placed, batch))
            for variables, found in zip(groups, values, strict=True):
                for variable, value in zip(variables, found, strict=True):
                    variable.assign(value)
            return {name: logs[name] for name in names}, wish

        return step

    def _placed(self, array):
        array = np.asarray(array)
        if not self.distributed:
            return array
        layout = self.distribution.get_data_layout(array.shape)
        return keras.distribution.distribute_tensor(array, layout)


def _state(model):
    """The variables of a step, in the order of its state."""
    return (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
