"""From image bytes on disk to batches of every resolution, with tf.data."""
