"""The step of `rs_keras.training.step` on JAX: functions of the state, to jit."""

import jax
import keras
from jax import numpy as jnp

from rs_keras.training import step


def train_step(model, state, x, y):
    trainable, non_trainable, of_optimizer, of_metrics = state
    loss, found, *updated = gradients(model, state, x, y)
    new = model.optimizer.stateless_apply(of_optimizer, found, trainable)
    state = (new[0], updated[0], new[1], updated[1])
    skips = model.step_options.skip_nonfinite
    if skips:
        old = (trainable, non_trainable, of_optimizer, of_metrics)
        values = step.judged(model, loss, found)
        finite = jnp.array([jnp.isfinite(value).all() for value in values]).all()
        state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), state, old)
    with _scope(model.metrics_variables, state[3]) as scope:
        if skips:
            model.skipped_steps.update_state(1 - finite.astype("float32"))
        logs = model.compute_metrics(x, y, None)
    return logs, (*state[:3], _current(scope, model.metrics_variables))


def gradients(model, state, x, y):
    """(loss, gradients, non-trainable variables, the metrics' variables)."""
    once = _one_resolution_at_a_time if step.two_passes(model) else _all_resolutions
    if model.step_options.accumulate == 1:
        return once(model, state, x, y)
    return _accumulated(model, once, state, x, y)


def _all_resolutions(model, state, x, y):
    trainable, non_trainable, of_optimizer, of_metrics = state

    def objective(trainable):
        logits, updated = model.stateless_call(
            trainable, non_trainable, x, training=True
        )
        scaled, loss, metrics = _losses(
            model, (trainable, updated, of_optimizer, of_metrics), x, y, logits
        )
        return scaled, (loss, updated, metrics)

    found, (loss, *updated) = jax.grad(objective, has_aux=True)(trainable)
    return loss, found, *updated


def _one_resolution_at_a_time(model, state, x, y):
    trainable, start, of_optimizer, of_metrics = state
    largest, *others = model.keys

    def forward(trainable, non_trainable, key, images):
        return model.stateless_call(
            trainable, non_trainable, images, resolution=key, training=True
        )

    def with_pullback(non_trainable, key, images):
        return jax.vjp(
            lambda trainable: forward(trainable, non_trainable, key, images),
            trainable,
            has_aux=True,
        )

    logits = {}
    logits[largest], of_largest, start = with_pullback(start, largest, x[largest])
    # What the others change in their first pass is dropped, so that their second pass
    # finds, and leaves, what the ordinary step finds and leaves.
    done = logits[largest], start
    for key in others:
        images, (_, found) = _after(done, x[key])
        done = logits[key], _ = forward(trainable, found, key, images)

    def objective(trainable, logits):
        scaled, loss, metrics = _losses(
            model, (trainable, start, of_optimizer, of_metrics), x, y, logits
        )
        return scaled, (loss, metrics)

    (total, of_logits), (loss, metrics) = jax.grad(
        objective, argnums=(0, 1), has_aux=True
    )(trainable, logits)
    total = step.added(total, of_largest(of_logits[largest])[0])

    for key in others:

        def backward(total, start, images, key=key):
            _, pullback, start = with_pullback(start, key, images)
            return step.added(total, pullback(of_logits[key])[0]), start

        images, (total, start) = _after((total, start), x[key])
        total, start = _apart(backward, y, total, start, images)
    return loss, total, start, metrics


def _accumulated(model, once, state, x, y):
    """Mean loss and gradients of `once` over the parts of a batch, one by one."""
    parts = model.step_options.accumulate
    trainable, non_trainable, of_optimizer, of_metrics = state
    step.check_parts(y.shape[0], parts)
    x, y = jax.tree.map(
        lambda v: jnp.reshape(v, (parts, v.shape[0] // parts, *v.shape[1:])), (x, y)
    )

    def body(carried, part):
        loss, totals, non_trainable, of_metrics = carried
        state = trainable, non_trainable, of_optimizer, of_metrics
        of_part, found, *updated = once(model, state, *part)
        new = (loss + of_part, step.added(totals, found), *updated)
        # A loop carries the dtypes that it starts with.
        return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), new, carried), None

    start = (
        jnp.zeros((), model.variable_dtype),
        [jnp.zeros_like(value) for value in trainable],
        list(non_trainable),
        list(of_metrics),
    )
    (loss, totals, *updated), _ = jax.lax.scan(body, start, (x, y))
    return loss / parts, [total / parts for total in totals], *updated


def _losses(model, state, x, y, logits):
    """What to differentiate, the loss and the metrics' variables after an update."""
    trainable, non_trainable, of_optimizer, of_metrics = state
    loss, (_, _, of_metrics) = model.stateless_compute_loss(
        trainable, non_trainable, of_metrics, x=x, y=y, y_pred=logits, training=True
    )
    with _scope(model.optimizer.variables, of_optimizer):
        scaled = model.optimizer.scale_loss(loss)
    # As Keras' own step counts it.
    with _scope(model.metrics_variables, of_metrics) as scope:
        images = x[model.keys[0]].shape[0]
        model._loss_tracker.update_state(loss, sample_weight=images)
    return scaled, loss, _current(scope, model.metrics_variables)


def _after(done, images):
    """Both, with the images behind a barrier: what is computed from them waits.

    Without it XLA would merge the two passes of a resolution, and order them freely.
    """
    images, done = jax.lax.optimization_barrier((images, done))
    return images, done


def _apart(function, labels, total, start, images):
    """`function(total, start, images)`, as a computation of its own.

    XLA's CPU compiler removes barriers before it merges equal operations: there the
    second pass must be where no merging reaches it, in the branch of a condition that
    always holds, and of which the compiler cannot know that.
    """
    if jax.default_backend() != "cpu":
        return function(total, start, images)
    return jax.lax.cond(
        labels[0].astype("int32") >= -1,
        function,
        lambda total, start, images: (total, start),
        total,
        start,
        images,
    )


def _scope(variables, values):
    return keras.StatelessScope(list(zip(variables, values, strict=True)))


def _current(scope, variables):
    return [scope.get_current_value(v) for v in variables]
