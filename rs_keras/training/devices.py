"""Several devices that train one network: its step, its data and its state.

Every replica takes an equal, consecutive part of each global batch, and gradients are
summed over the replicas, of losses that are each a share of the mean: the step is that
of one device on the global batch, but for batch normalization, which has the statistics
of each replica's part unless it is synchronized.

`fit()` cannot do this with several processes (Keras issue 20585), so the same
`train_step` runs here in a function of our own.
"""

import contextlib

import numpy as np
import tensorflow as tf

# What is left of a step in which another process has died.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.AbortedError,
)


def set_threads(threads):
    """Limits TensorFlow, before its first use, to this many threads; 0: all."""
    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


class Devices:
    """The devices of a run. To be made before Keras is imported.

    Args:
        distribute: "none" (Keras' own choice, one device); "mirrored" (the GPUs of this
            machine, or else its logical CPUs); "multi_worker" (several processes).
        task: `cluster.Task` of this process.

    Attributes:
        task: see above.
        replicas: number of devices, of all processes.
    """

    def __init__(self, distribute, task):
        self.strategy, self.task, self.replicas = None, task, 1
        if distribute != "none":
            tf.get_logger().setLevel("WARNING")  # it tells of each message
        self._readers = {}  # what `read` has traced, by the variables
        if distribute == "mirrored":
            found = tf.config.list_logical_devices("GPU")
            found = found or tf.config.list_logical_devices("CPU")
            self.strategy = tf.distribute.MirroredStrategy([d.name for d in found])
        elif distribute == "multi_worker":
            print(f"Process {task.worker} of {task.workers} waits for the others")
            try:
                self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
            except tf.errors.OpError as error:
                raise ValueError(
                    "The processes of TF_CONFIG must reach each other, and each open "
                    f"its port. Received: {reason(error)}"
                ) from error
        if self.strategy is not None:
            self.replicas = self.strategy.num_replicas_in_sync

    def scope(self):
        """Within, a network gets a copy on each device."""
        return (
            contextlib.nullcontext() if self.strategy is None else self.strategy.scope()
        )

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
        if self.strategy is None:
            return dataset(batch_size, self.task)
        return self.strategy.distribute_datasets_from_function(
            lambda context: dataset(batch_size // self.replicas, self.task)
        )

    def step(self, model):
        """The training step of a compiled model.

        Returns:
            Function (batch, wish) -> (logs, wished): a bool of this process, and
            whether it is true in any process.
        """
        if self.strategy is None:
            model.make_train_function()
            return lambda batch, wish: (model.train_function(iter((batch,))), wish)

        @tf.function(reduce_retracing=True)
        def train(batch, wish):
            def replica(batch):
                logs = model.train_step(batch)
                return {**logs, "wish": tf.identity(wish)}

            logs = self.strategy.run(replica, args=(batch,))
            # Means, because each replica has seen as many images.
            return {k: self.strategy.reduce("MEAN", v, None) for k, v in logs.items()}

        def step(batch, wish):
            logs = train(batch, tf.constant(float(wish)))
            return logs, float(logs.pop("wish")) > 0

        return step

    def agree(self, numbers):
        """The numbers of the first process, in every one. All processes call this."""
        if self.task.workers == 1:
            return list(numbers)
        mine = np.asarray(numbers, np.float64) * self.task.writes

        @tf.function
        def total():
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(mine))

        # As many summands of the first process as it has devices.
        found = self.strategy.experimental_local_results(self.strategy.run(total))[0]
        share = self.replicas // self.task.workers
        return [round(float(x)) for x in found.numpy() / share]

    def read(self, variables):
        """The values of variables, as arrays. All processes call this.

        In one graph: read one by one, each variable that the devices have different
        copies of, as the moving statistics, would cost a message of its own.
        """
        if self.strategy is None:
            return [np.asarray(v) for v in variables]
        key = tuple(map(id, variables))
        if key not in self._readers:
            self._readers[key] = tf.function(
                lambda: [tf.identity(v.value) for v in variables]
            )
        return [value.numpy() for value in self._readers[key]()]

    def copy_state(self, model, other):
        """Gives `other`, on one device, the state of `model`; all processes call it."""
        values = self.read([*model.variables, *model.optimizer.variables])
        variables = (*other.variables, *other.optimizer.variables)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def reason(error):
    """The line of an error in `LOST` that says what happened."""
    lines = error.message.strip().splitlines()
    told = [x for x in lines if "aborted by" in x or "Error reported from" in x]
    return (told or lines)[-1][:300]
