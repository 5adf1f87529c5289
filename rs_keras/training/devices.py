"""Several devices that train one network: its step, its data and its state.

Every device takes an equal, consecutive part of each global batch, and the step is that
of one device on the global batch. `devices_tensorflow` and `devices_jax` hold what
differs between the backends, which may be installed without each other.
"""

import abc
import contextlib
import hashlib
import os

import keras
import numpy as np


def start(threads):
    """Prepares TensorFlow, which loads the images on every backend.

    To be called before its first use.

    Args:
        threads: limits it, and on CPUs JAX, to this many threads; 0: all.
    """
    import tensorflow as tf

    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    if keras.backend.backend() == "jax":
        # It would take all memory of the GPUs that JAX trains on.
        tf.config.set_visible_devices([], "GPU")
        if threads:
            os.environ["NPROC"] = str(threads)  # what XLA sizes its pool by


def devices(distribute, task):
    """The `Devices` of a run.

    Args:
        distribute: "none" (Keras' own choice, one device); "mirrored" (all of this
            machine); "multi_worker" (several processes; TensorFlow).
        task: `cluster.Task` of this process.
    """
    if keras.backend.backend() == "jax":
        from rs_keras.training import devices_jax

        return devices_jax.JaxDevices(distribute, task)
    from rs_keras.training import devices_tensorflow

    return devices_tensorflow.TensorFlowDevices(distribute, task)


class Devices(abc.ABC):
    """The devices of a run: one, unless a subclass has more.

    Args:
        task: `cluster.Task` of this process.

    Attributes:
        task: see above.
        distributed: whether a network made in `scope` is for `step` alone.
        replicas: number of devices, of all processes.
    """

    def __init__(self, task):
        self.task, self.distributed, self.replicas = task, False, 1

    def scope(self):
        """Within, a network gets a copy on each device."""
        return contextlib.nullcontext()

    def check_batch_size(self, batch_size, parts):
        """Raises ValueError unless every part of every device gets as many images."""
        if batch_size % (self.replicas * parts):
            raise ValueError(
                "--batch_size must be a multiple of the number of devices times "
                f"--accumulate, {self.replicas} x {parts}. "
                f"Received: --batch_size={batch_size}"
            )

    def batches(self, dataset, batch_size):
        """What `step` takes, one global batch after the other.

        Args:
            dataset: function (images a batch, `cluster.Task`) -> tf.data.Dataset of
                that process's part of the batches.
            batch_size: N, images of a global batch.
        """
        return dataset(batch_size, self.task)

    @abc.abstractmethod
    def step(self, model):
        """The training step of a compiled model.

        Returns:
            Function (batch, wish) -> (logs, wished): a bool of this process, and
            whether it is true in any process.
        """

    def agree(self, numbers):
        """The numbers of the first process, in every one. All processes call this."""
        return list(numbers)

    def check_same(self, text):
        """Raises ValueError unless all processes have this text: flags and images."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        mine = [int.from_bytes(digest[:5]), int.from_bytes(digest[5:10])]
        if self.agree(mine) != mine:
            raise ValueError(
                "All processes need the same flags and the same images. Received: "
                f"others than the first process, in process {self.task.worker}"
            )

    def read(self, variables):
        """The values of variables, as arrays. All processes call this."""
        return [np.asarray(v) for v in variables]

    def copy_state(self, model, other):
        """Gives `other`, on one device, the state of `model`; all processes call it."""
        values = self.read([*model.variables, *model.optimizer.variables])
        variables = (*other.variables, *other.optimizer.variables)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
