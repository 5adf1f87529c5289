"""Training, evaluation and their metrics, on a network of four convolutions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import rs_keras

KEYS = (64, 48, 32)


def branches(images, sides=KEYS):
    """{r: images[:, :r, :r]}: the trainer does not care how they were made."""
    return {r: images[:, :r, :r] for r in sides}


def compiled(model, *, mode="full", rate=0.05, **kwargs):
    optimizer = rs_keras.SGD(rate, weight_decay=1e-4)
    loss = rs_keras.MultiResolutionDistillation(mode)
    model.compile(optimizer, loss, **kwargs)
    return model


def mred(logits, labels, alpha):
    """L and the accuracies in float64, from the paper: {name: value}."""
    logits = np.asarray(logits, np.float64)
    ensemble = np.tensordot(np.exp(alpha) / np.exp(alpha).sum(), logits, axes=1)
    log_p = [z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (ensemble, *logits)]
    rows = np.arange(len(labels))
    classification = -sum(p[rows, labels].mean() for p in log_p[1:])
    loss_ensemble = -log_p[0][rows, labels].mean()
    raw = sum(
        (np.exp(log_p[t]) * (log_p[t] - log_p[s])).sum(-1).mean()
        for s in range(1, len(log_p))
        for t in range(s)
    )
    distillation = 2 / (len(logits) + 1) * raw
    values = {
        "loss": classification + loss_ensemble + distillation,
        "loss_classification": classification,
        "loss_ensemble": loss_ensemble,
        "loss_distillation": distillation,
    }
    for key, p in zip(("ensemble", *KEYS), log_p, strict=True):
        values[f"top1_{key}"] = (p.argmax(-1) == labels).mean()
        five = np.argsort(-p, axis=-1)[:, :5]
        values[f"top5_{key}"] = (five == labels[:, None]).any(-1).mean()
    return values


@pytest.fixture(scope="module")
def data(batch):
    images, labels = batch(n=10)
    return branches(images), labels


@pytest.fixture(scope="module")
def model(tiny, data):
    """Compiled and fitted for an epoch; tests that train it do not rely on a state."""
    model = compiled(tiny())
    model.fit(*data, batch_size=4, verbose=0)
    return model


def test_evaluate_equals_numpy_on_the_same_logits(model, data):
    images, labels = data
    logits = np.stack([model(images[r], resolution=r) for r in KEYS])
    expected = mred(logits, labels, model.alpha.numpy().astype(np.float64))
    # Batches of 4, 4 and 2: a mean over batches would differ from one over images.
    got = model.evaluate(images, labels, batch_size=4, verbose=0)
    assert set(got) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, err_msg=name)


def test_equal_logits_are_not_counted_as_right(tiny, data):
    images, _ = data
    labels = np.arange(10) % 6
    model = compiled(tiny())
    for weight in (model.head.kernel, model.head.bias):
        weight.assign(keras.ops.zeros_like(weight))
    got = model.evaluate(images, labels, verbose=0)
    for key in (*KEYS, "ensemble"):  # of equals the first is chosen, as by argmax
        np.testing.assert_allclose(got[f"top1_{key}"], (labels == 0).mean())
        np.testing.assert_allclose(got[f"top5_{key}"], (labels < 5).mean())


def test_top5_is_left_out_below_six_classes(tiny):
    names = compiled(tiny(num_classes=5)).means
    assert not any(name.startswith("top5") for name in names)


def test_fit_reports_training_and_validation_at_every_resolution(tiny, data):
    model = compiled(tiny())
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(5)
    history = model.fit(
        dataset, validation_data=dataset, epochs=2, shuffle=False, verbose=0
    ).history
    names = ["loss", "loss_classification", "loss_ensemble", "loss_distillation"]
    names += [f"top{k}_{key}" for k in (1, 5) for key in (*KEYS, "ensemble")]
    assert set(history) == {*names, *(f"val_{name}" for name in names)}
    assert history["loss"][1] < history["loss"][0]


def test_plain_images_are_resized_for_training_and_cropped_for_evaluation(tiny, batch):
    images, labels = batch(side=(70, 90))
    model = compiled(tiny())
    got = model.evaluate(images, labels, verbose=0)
    for r in KEYS:
        logits = model.predict(images, resolution=r, verbose=0)
        expected = (logits.argmax(-1) == labels).mean()
        np.testing.assert_allclose(got[f"top1_{r}"], expected)
    # Training takes the whole image: the loss of its squashed copies.
    squashed = {
        r: np.round(tf.image.resize(images, (r, r), antialias=True)) for r in KEYS
    }
    optimizer_free = compiled(tiny(), rate=0.0)
    expected = optimizer_free.train_on_batch(squashed, labels, return_dict=True)
    got = compiled(tiny(), rate=0.0).train_on_batch(images, labels, return_dict=True)
    # A grey level of difference where a value lies half way between two.
    np.testing.assert_allclose(got["loss"], expected["loss"], rtol=1e-4)


def test_plain_images_of_changing_sizes_train_in_one_fit(tiny, batch):
    batches = [batch(side=side) for side in ((70, 90), (64, 64), (40, 100))]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature=(
            tf.TensorSpec((None, None, None, 3), tf.uint8),
            tf.TensorSpec((None,), tf.int64),
        ),
    ).apply(tf.data.experimental.assert_cardinality(3))
    history = compiled(tiny()).fit(dataset, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_alpha_and_statistics_move_and_stay_where_they_belong(tiny, data):
    model = compiled(tiny())
    before = {v.path: v.numpy() for v in model.weights}
    model.train_on_batch(*data)
    for v in model.weights:
        changed = v.numpy() != before[v.path]
        assert changed.reshape(len(changed), -1).any(axis=1).any(), v.path


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_fit_learns(tiny, data, policy, name):
    policy(name)
    model = compiled(tiny())
    if name == "mixed_float16":
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        model.optimizer.initial_scale = 2.0**10  # the default would skip steps
    start = [v.numpy() for v in model.trainable_variables]
    losses = model.fit(*data, batch_size=10, epochs=4, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    for v, old in zip(model.trainable_variables, start, strict=True):
        assert v.dtype == "float32"
        assert (v.numpy() != old).any(), v.path


@pytest.mark.slow
def test_compiled_with_xla_the_step_is_the_same(tiny, data, batch):
    images, labels = batch(side=(70, 90))
    results = []
    for jit in (False, True):
        model = compiled(tiny(), jit_compile=jit)
        losses = [
            model.train_on_batch(*data, return_dict=True)["loss"],
            # Resizing runs under XLA, too.
            model.train_on_batch(images, labels, return_dict=True)["loss"],
        ]
        results.append((losses, [v.numpy() for v in model.trainable_variables]))
    (plain, weights), (xla, xla_weights) = results
    # float32 sums in another order
    np.testing.assert_allclose(xla, plain, rtol=1e-4)
    for got, expected in zip(xla_weights, weights, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


class TestErrors:
    def test_metrics_of_ones_own_are_refused(self, tiny):
        with pytest.raises(ValueError, match="takes no others. Received: metrics="):
            tiny().compile(metrics=["accuracy"])

    @pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch"])
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (6, r"Labels must be in \[0, 6\). Received: labels from \d to 6"),
            (-1, r"Labels must be in \[0, 6\). Received: labels from -1 to \d"),
        ],
    )
    def test_labels_out_of_range_are_refused(self, model, data, method, wrong, message):
        images, labels = data
        labels = np.where(np.arange(10) == 3, wrong, labels)
        before = model.get_weights()
        with pytest.raises(ValueError, match=message):
            getattr(model, method)(images, labels)
        if method == "fit":
            with pytest.raises(ValueError, match=message):
                model.fit(*data, validation_data=(images, labels))
        for value, old in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(value, old)

    @pytest.mark.parametrize("jit", [False, True])
    def test_labels_out_of_range_in_a_dataset_are_never_silent(self, tiny, data, jit):
        images, labels = data
        dataset = tf.data.Dataset.from_tensors((images, labels + 1))
        model = compiled(tiny(), jit_compile=jit)
        try:
            loss = model.evaluate(dataset, verbose=0)["loss"]
        except tf.errors.InvalidArgumentError as error:
            assert "outside the valid range of [0, 6)" in str(error)
        else:
            assert np.isnan(loss)

    def test_labels_out_of_range_in_a_dataset_are_named_by_fit(self, tiny, data):
        images, labels = data
        dataset = tf.data.Dataset.from_tensors((images, labels + 6))
        with pytest.raises(
            ValueError, match=r"Labels must be in \[0, 6\). Received: l"
        ):
            compiled(tiny()).fit(dataset, shuffle=False, verbose=0)

    @pytest.mark.parametrize(
        ("change", "received"),
        [
            (lambda y: y.astype("float32"), r"shape=\(10,\), dtype=float32"),
            (lambda y: y[:, None], r"shape=\(10, 1\), dtype=int64"),
            (lambda y: np.eye(6)[y], r"shape=\(10, 6\), dtype=float64"),
        ],
    )
    def test_labels_of_another_kind_are_refused(self, model, data, change, received):
        images, labels = data
        rule = r"Labels must be integers of the shape \(N,\). Received: "
        with pytest.raises(ValueError, match=rule + received):
            model.train_on_batch(images, change(labels))
        dataset = tf.data.Dataset.from_tensors((images, change(labels)))
        with pytest.raises(ValueError, match=rule):
            model.fit(dataset, shuffle=False, verbose=0)

    def test_missing_labels_are_refused(self, model, data):
        dataset = tf.data.Dataset.from_tensors((data[0],))
        for call, options in ((model.fit, {"shuffle": False}), (model.evaluate, {})):
            with pytest.raises(ValueError, match="need labels. Received: labels=None"):
                call(dataset, verbose=0, **options)

    def test_a_missing_branch_is_refused(self, model, data):
        images, labels = data
        with pytest.raises(
            ValueError,
            match=r"every branch of \(64, 48, 32\). Received: keys=\(64, 32\)",
        ):
            model.train_on_batch(branches(images[64], (64, 32)), labels)

    def test_sample_weights_are_refused(self, model, data):
        with pytest.raises(ValueError, match="`sample_weight` is not supported. Rec"):
            model.fit(*data, sample_weight=np.ones(10), verbose=0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x: x.astype("int32"), "uint8 or float.* Received: dtype=int32"),
            (lambda x: x[..., :1], r"\(N, H, W, 3\).* Received: shape=\(.*1\)"),
            (lambda x: x[:, 0], r"\(N, H, W, 3\).* Received: shape=\(.*3\)"),
        ],
    )
    def test_images_of_another_kind_are_refused(self, tiny, data, change, message):
        images, labels = data
        model = compiled(tiny())
        for wrong in (change(images[64]), {r: change(x) for r, x in images.items()}):
            with pytest.raises(ValueError, match=message):
                model.train_on_batch(wrong, labels)

    def test_another_loss_is_refused(self, tiny):
        with pytest.raises(
            ValueError, match="MultiResolutionDistillation. Received: loss='mse'"
        ):
            tiny().compile("sgd", "mse")
