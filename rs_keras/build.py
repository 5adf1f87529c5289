"""Composition root: from the flags of a run to its network, data and objective."""

import keras
import numpy as np

from rs_keras.checkpoints import keras_file
from rs_keras.data import pipeline
from rs_keras.data import scan
from rs_keras.losses import distillation
from rs_keras.models import mobilenet_v2
from rs_keras.models import resnet
from rs_keras.models import switchable
from rs_keras.profiling import macs
from rs_keras.training import optimizers

SCALINGS = {"rsnet": "unit", "official_quant": "imagenet"}  # of --preprocessing
MODELS = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "mobilenet_v2": mobilenet_v2.mobilenet_v2,
}


def set_up(config):
    """Process-wide settings of a run: seed and dtype policy.

    Raises:
        ValueError: Keras' backend does not do what a flag asks for.
    """
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise ValueError(
            "Training runs on the TensorFlow and the JAX backend. "
            f"Received: KERAS_BACKEND={backend}"
        )
    if backend == "jax":
        _check_jax(config)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)


def _check_jax(config):
    for flag, wrong in (
        ("--rest_bits=8", config.rest_bits == 8),
        ("--distribute=multi_worker", config.distribute == "multi_worker"),
    ):
        if wrong:
            raise ValueError(
                f"{flag} needs the TensorFlow backend. Received: KERAS_BACKEND=jax"
            )
    if config.distribute == "mirrored" and not config.synchronized_bn:
        raise ValueError(
            "On JAX batch normalization is over the images of all devices, which has "
            "to be said: --synchronized_bn. "
            "Received: KERAS_BACKEND=jax --distribute=mirrored --nosynchronized_bn"
        )


def classifier(config, class_names, keras_model=None):
    """The network of a run, for a dataset with these classes.

    Args:
        keras_model: what the file holds that --model names, if it names one.

    Raises:
        ValueError: --num_classes is not the dataset's number of classes, or the
            network refuses its arguments.
    """
    if config.num_classes not in (None, len(class_names)):
        raise ValueError(
            f"--num_classes must be the dataset's {len(class_names)}, or be left out. "
            f"Received: --num_classes={config.num_classes}"
        )
    if len(class_names) < 2:
        raise ValueError(
            "--dataset must have at least two classes. "
            f"Received: --dataset={config.dataset} with one, {class_names[0]}"
        )
    if keras_model is not None:
        return switchable.make_switchable(
            keras_model,
            config.resolutions,
            num_classes=len(class_names),
            weight_bits=config.weight_bits,
            activation_bits=config.activation_bits,
            basis_updates=config.basis_updates,
            activation_basis=config.activation_basis,
            synchronized=config.synchronized_bn,
            dtype=config.precision,
            class_names=class_names,
        )
    shortcut = {"shortcut": config.shortcut} if config.shortcut != "B" else {}
    return MODELS[config.model](
        resolutions=config.resolutions,
        num_classes=len(class_names),
        width=config.width,
        scaling=config.scaling or SCALINGS[config.preprocessing],
        weight_bits=config.weight_bits,
        activation_bits=config.activation_bits,
        rest_bits=config.rest_bits,
        basis_updates=config.basis_updates,
        activation_basis=config.activation_basis,
        **shortcut,
        norm_options={"synchronized": True} if config.synchronized_bn else None,
        views=config.views,
        shared_bn=config.method == "shared_bn",
        class_names=class_names,
    )


def keras_model(config, workdir):
    """The Keras model in the file that --model names; None if it names none.

    A run that goes on has its own copy of the file.
    """
    if not config.own_network:
        return None
    path = workdir.network if workdir.has_state() else config.model
    return keras_file.load_keras_model(path)


def initialize(model, config, keras_model=None):
    """Gives a new network the weights of --init_from; returns what did not fit."""
    sentences, there = [], keras_model and keras_model.output_shape[-1]
    if there not in (None, model.num_classes):
        classes = f"{there} classes there, {model.num_classes} here"
        sentences.append(f"model: the head starts anew: {classes}")
    if config.init_from:
        found = keras_file.initialize_from(model, config.init_from)
        sentences += [f"init_from: {sentence}" for sentence in found]
    return sentences


def compile_model(model, config, steps_per_epoch):
    """Compiles with the optimizer, schedule and objective of a run."""
    model.compile(
        optimizer=optimizers.SGD(
            _schedule(config, steps_per_epoch),
            momentum=0.9,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            decay_scope=config.decay_scope,
        ),
        loss=distillation.MultiResolutionDistillation(config.mode),
        activation_memory=config.activation_memory,
        accumulate=config.accumulate,
        skip_nonfinite=True,
        # JAX compiles every step.
        jit_compile=config.jit or keras.backend.backend() == "jax",
    )


def train_batches(config, source, *, start, shard=(0, 1), shard_batch=None):
    """The training batches of a run from (finished epochs, steps of the next) on.

    Args:
        shard, shard_batch: as in `pipeline.train_dataset`.
    """
    return pipeline.train_dataset(
        source,
        config.resolutions,
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        start=start,
        shard=shard,
        shard_batch=shard_batch,
        service=config.data_service,
        crops=config.crops,
        flip=config.flip,
        views=config.views,
        area=config.area,
        resize=config.resize,
        preprocessing=config.preprocessing,
    )


def images_of_step(config, source, epoch, step):
    """The names of a step's images; both from 0. None if a data service deals them."""
    if config.data_service is not None:
        return None
    return pipeline.images_of_step(
        source, batch_size=config.batch_size, seed=config.seed, epoch=epoch, step=step
    )


def next_files(config, source, position):
    """The files of the next step, where errors of the data do not name them."""
    found = images_of_step(config, source, *position) if source.scanned else None
    return found or []


def results(model, found, keys, sides, skipped=()):
    """What results.json holds.

    Args:
        model: `Classifier`.
        found: what `evaluator.evaluate` returned for `keys`.
        keys: the branches or resolutions that were tested.
        sides: the resolution of each, in pixels.
        skipped: `Source.skipped` of each split that was used.

    Returns:
        Dict: "resolutions" {key: {"top1", "top5", "mean_class", "macs"}}, "ensemble",
        "alpha" (after the softmax, one for each trained branch), "parameters"
        (trainable, without alpha), "classes", "skipped_images".
    """
    costs = {
        str(key): macs.multiply_adds(model, side)
        for key, side in zip(keys, sides, strict=True)
    }
    return {
        "resolutions": {
            key: {**row, "macs": costs[key]}
            for key, row in found["resolutions"].items()
        },
        "ensemble": found["ensemble"],
        "alpha": list(ensemble_shares(model).values()),
        "parameters": macs.trainable_parameters(model),
        "classes": model.class_names,
        "skipped_images": scan.listed(*skipped),
    }


def ensemble_shares(model):
    """{key: its weight in the ensemble}, softmax of alpha."""
    weights = distillation.ensemble_weights(model.alpha)
    return {
        key: float(weight)
        for key, weight in zip(model.keys, np.asarray(weights), strict=True)
    }


def _schedule(config, steps_per_epoch):
    schedules = keras.optimizers.schedules
    total = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "steps":
        # Keras changes the rate behind a boundary; steps count from 0.
        ends = [epoch * steps_per_epoch - 1 for epoch in config.decay_epochs]
        rates = [config.learning_rate / 10**n for n in range(len(ends) + 1)]
        return schedules.PiecewiseConstantDecay(ends, rates)
    if config.schedule == "constant" and not warmup:
        return config.learning_rate
    if config.schedule == "constant":
        return schedules.PolynomialDecay(
            0.0, warmup, end_learning_rate=config.learning_rate
        )
    if not warmup:
        return schedules.CosineDecay(config.learning_rate, total)
    return schedules.CosineDecay(
        0.0,
        total - warmup,
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
