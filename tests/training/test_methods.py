"""The ways to train: shared normalization, views, one resolution."""

import numpy as np

from tests.training import test_trainer

KEYS = test_trainer.KEYS
compiled = test_trainer.compiled
data = test_trainer.data


class TestMethods:
    def test_shared_normalization_has_one_row_that_every_resolution_moves(
        self, tiny, data
    ):
        images, labels = data
        model = compiled(tiny(shared_bn=True), mode="none")
        norm = model.blocks[0].norm
        assert tuple(norm.moving_mean.shape) == (1, 16)
        # S updates a step, in the order of the branches, from the largest.
        mean = np.zeros(16)
        conv = model.blocks[0].conv
        for r in KEYS:
            x = np.pad(images[r] / 255, ((0, 0), (1, 1), (1, 1), (0, 0)))
            mean = 0.9 * mean + 0.1 * conv(x.astype(np.float32)).numpy().mean((0, 1, 2))
        model.train_on_batch(images, labels)
        got = norm.moving_mean.numpy()[0]
        np.testing.assert_allclose(got, mean, rtol=1e-4, atol=1e-5)
        assert set(model.evaluate(images, labels, verbose=0)) >= {"top1_64", "top1_32"}

    def test_views_train_a_private_row_each(self, tiny, data):
        _, labels = data
        model = compiled(tiny((32,), views=3))
        keys = ("32_view1", "32_view2", "32_view3")
        assert model.keys == keys
        generator = np.random.default_rng(0)
        images = {k: generator.integers(0, 256, (10, 32, 32, 3), "uint8") for k in keys}
        model.train_on_batch(images, labels)
        norm = model.blocks[0].norm
        assert len({row.tobytes() for row in norm.moving_mean.numpy()}) == 3
        logs = model.evaluate(images, labels, verbose=0)
        assert {f"top1_{k}" for k in keys} <= set(logs)
        plain = model.evaluate(images[keys[0]], labels, verbose=0)
        assert plain["top1_32_view1"] == logs["top1_32_view1"]

    def test_a_single_resolution_trains_as_an_ordinary_network(self, tiny, data):
        images, labels = data
        model = compiled(tiny((32,)))
        logs = model.train_on_batch({32: images[32]}, labels, return_dict=True)
        # No teacher but the ensemble of one, whose divergence is zero.
        np.testing.assert_allclose(logs["loss_distillation"], 0, atol=1e-6)
        np.testing.assert_allclose(
            logs["loss_ensemble"], logs["loss_classification"], rtol=1e-6
        )
        np.testing.assert_array_equal(model.alpha.numpy() < 1, True)  # weight decay
