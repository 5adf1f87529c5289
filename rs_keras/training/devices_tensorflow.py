"""Several devices on TensorFlow: one process or more, by tf.distribute.

Gradients are summed over the replicas, of losses that are each a share of the mean.
Batch normalization has the statistics of each replica's part unless it is synchronized.

`fit()` cannot do this with several processes (Keras issue 20585), so the same
`train_step` runs here in a function of our own.
"""

import numpy as np
import tensorflow as tf

from rs_keras.training import devices

# What is left of a step in which another process has died.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.AbortedError,
)


class TensorFlowDevices(devices.Devices):
    """`Devices` of a `tf.distribute` strategy, to be made before the first operation.

    Args:
        distribute: "none", "mirrored" (the GPUs of this machine, or else its logical
            CPUs) or "multi_worker".
        task: `cluster.Task` of this process.
    """

    def __init__(self, distribute, task):
        super().__init__(task)
        self.strategy = None
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
            self.distributed = True
            self.replicas = self.strategy.num_replicas_in_sync

    def scope(self):
        return super().scope() if self.strategy is None else self.strategy.scope()

    def batches(self, dataset, batch_size):
        if self.strategy is None:
            return super().batches(dataset, batch_size)
        return self.strategy.distribute_datasets_from_function(
            lambda context: dataset(batch_size // self.replicas, self.task)
        )

    def step(self, model):
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
        if self.task.workers == 1:
            return super().agree(numbers)
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
        if self.strategy is None:
            return super().read(variables)
        # In one graph: read one by one, each variable that the devices have different
        # copies of, as the moving statistics, would cost a message of its own.
        key = tuple(map(id, variables))
        if key not in self._readers:
            self._readers[key] = tf.function(
                lambda: [tf.identity(v.value) for v in variables]
            )
        return [value.numpy() for value in self._readers[key]()]


def reason(error):
    """The line of an error in `LOST` that says what happened."""
    lines = error.message.strip().splitlines()
    told = [x for x in lines if "aborted by" in x or "Error reported from" in x]
    return (told or lines)[-1][:300]
