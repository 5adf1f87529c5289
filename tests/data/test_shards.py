"""Batches that several workers share, and those that a tf.data service loads."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from rs_keras.data import pipeline
from rs_keras.data import shapes
from rs_keras.data import sources


@pytest.fixture
def source(monkeypatch):
    monkeypatch.setattr(shapes, "NUM_EXAMPLES", {"train": 22, "val": 22})
    return sources.open_source("shapes", "train")


def labels_of(source, **options):
    options = {"batch_size": 4, "epochs": 3, "seed": 1, **options}
    dataset = pipeline.train_dataset(source, (32,), **options)
    return [labels.numpy() for _, labels in dataset]


def test_the_parts_of_two_workers_are_the_whole(source):
    whole = labels_of(source)
    one, two = (
        np.reshape(labels_of(source, shard=(i, 2), shard_batch=1), (-1, 2))
        for i in (0, 1)
    )
    np.testing.assert_array_equal(np.hstack([one, two]), whole)


def test_a_data_service_hands_out_every_image_of_every_epoch_once(source):
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    workers = [
        service.WorkerServer(service.WorkerConfig(dispatcher_address=address))
        for _ in range(2)
    ]
    options = {"batch_size": 1, "seed": 3}
    local = pipeline.train_dataset(source, (32,), epochs=1, **options)
    remote = pipeline.train_dataset(
        source, (32,), epochs=1, **options, service=dispatcher.target
    )
    missing, seen = {x[32].numpy().tobytes() for x, _ in local}, set()
    assert len(missing) == 22
    # One worker may be some images, of the next epochs, ahead of the other.
    for x, _ in remote.take(500):
        image = x[32].numpy().tobytes()
        assert image not in seen  # every (epoch, index) has a crop of its own
        seen.add(image)
        missing.discard(image)
        if not missing:
            break
    assert not missing
    del workers


def test_a_set_that_is_read_in_order_has_no_service(source):
    streamed = dataclasses.replace(source, pick=None)
    with pytest.raises(ValueError, match="tf.data service needs .* Received: shapes"):
        pipeline.train_dataset(
            streamed, (32,), batch_size=1, epochs=1, seed=0, service="grpc://a:1"
        )
