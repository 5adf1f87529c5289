"""What a run shows in TensorBoard: curves, alpha, and what the network sees."""

import numpy as np
import tensorflow as tf

# Of the curves of alpha.
_ALPHA = "alpha/"
# Images of a batch shown in the grid.
_SHOWN = 8


class Writer:
    """Writes a run's curves and pictures.

    Args:
        directory: where TensorBoard looks.
    """

    def __init__(self, directory):
        self._writer = tf.summary.create_file_writer(str(directory))

    def epoch(self, epoch, logs, weights):
        """Scalars after an epoch: every log, and each branch's share {key: weight}."""
        with self._writer.as_default(step=epoch):
            for name, value in logs.items():
                tf.summary.scalar(name, value)
            for key, weight in weights.items():
                tf.summary.scalar(f"{_ALPHA}{key}", weight)
        self._writer.flush()

    def images(self, images):
        """A grid of one batch: a column for each image, a row for each branch.

        Args:
            images: {key: (N, r, r, 3)}, grey levels.
        """
        images = {key: np.asarray(v).astype(np.uint8) for key, v in images.items()}
        grid = image_grid(images)
        with self._writer.as_default(step=0):
            tf.summary.image("what the network sees", grid[None])
        self._writer.flush()


def image_grid(images):
    """{key: (N, r, r, 3)} as one picture (H, W, 3); small rows are magnified.

    Pixels are repeated, not smoothed: the picture shows what the network gets.
    """
    side = max(batch.shape[1] for batch in images.values())
    rows = []
    for batch in images.values():
        batch = batch[:_SHOWN]
        index = np.arange(side) * batch.shape[1] // side
        rows.append(np.concatenate(list(batch[:, index][:, :, index]), axis=1))
    return np.concatenate(rows, axis=0)


def read_shares(directory):
    """{branch: {epoch, as text: its share in the ensemble}} of a run.

    Of an epoch that was repeated it is the last; empty where nothing was written.
    """
    from tensorboard.backend.event_processing import event_accumulator as events
    from tensorboard.util import tb_logging
    from tensorboard.util import tensor_util

    if not directory.is_dir():
        return {}
    accumulator = events.EventAccumulator(str(directory), size_guidance={"tensors": 0})
    logger = tb_logging.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # each file's end is no news
    try:
        accumulator.Reload()
    finally:
        logger.setLevel(level)
    shares = {}
    for tag in accumulator.Tags()["tensors"]:
        if tag.startswith(_ALPHA):
            found = {
                event.step: float(tensor_util.make_ndarray(event.tensor_proto))
                for event in accumulator.Tensors(tag)
            }
            ordered = {str(step): found[step] for step in sorted(found)}
            shares[tag.removeprefix(_ALPHA)] = ordered
    return shares
