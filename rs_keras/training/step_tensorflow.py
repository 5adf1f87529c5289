"""The step of `rs_keras.training.step` on TensorFlow: graph, XLA and replicas."""

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.ops import control_flow_util

from rs_keras.training import step


def train_step(model, x, y):
    state = [*model.non_trainable_variables, *model.metrics_variables]
    before = _values(state)
    loss, found = gradients(model, x, y)
    weights = model.trainable_weights

    def apply(found):
        model.optimizer.apply_gradients(zip(found, weights, strict=True))

    if model.step_options.skip_nonfinite:
        finite = _finite(model, loss, found)
        _either(finite, apply, found, lambda before: _assign(state, before), before)
        model.skipped_steps.update_state(1 - tf.cast(finite, "float32"))
    else:
        apply(found)
    return model.compute_metrics(x, y, None)


def gradients(model, x, y):
    once = _one_resolution_at_a_time if step.two_passes(model) else _all_resolutions
    if model.step_options.accumulate == 1:
        return once(model, x, y)
    return _accumulated(model, once, x, y)


def _all_resolutions(model, x, y):
    with tf.GradientTape() as tape:
        loss, scaled = _losses(model, x, y, model(x, training=True))
    return loss, tape.gradient(scaled, model.trainable_weights)


def _one_resolution_at_a_time(model, x, y):
    weights = model.trainable_weights
    state = model.non_trainable_variables
    largest, *others = model.keys

    def forward(key, images):
        return model(images, resolution=key, training=True)

    with tf.GradientTape() as of_largest:
        logits = {largest: forward(largest, x[largest])}
    # What the others change in their first pass is taken back, so that their second
    # pass finds, and leaves, what the ordinary step finds and leaves.
    start = _values(state)
    last = largest
    for key in others:
        logits[key] = forward(key, _after([logits[last], *_values(state)], x[key]))
        last = key

    with tf.GradientTape() as of_loss:
        of_loss.watch(logits)
        loss, scaled = _losses(model, x, y, logits)
    # With respect to the weights as well: alpha.
    of_logits, total = of_loss.gradient(scaled, (logits, weights))
    found = of_largest.gradient(logits[largest], weights, of_logits[largest])
    total = step.added(total, found)

    _assign(state, start)
    for key in others:
        done = [g for g in total if g is not None]
        images = _after([*done, *_values(state)], x[key])
        with tf.GradientTape() as tape:
            again = forward(key, images)
        found = tape.gradient(again, weights, of_logits[key])
        total = step.added(total, found)
    return loss, total


def _accumulated(model, once, x, y):
    """Mean loss and gradients of `once` over the parts of a batch, one by one."""
    parts = model.step_options.accumulate
    weights = model.trainable_weights
    x = {key: _split(images, parts) for key, images in x.items()}
    y = _split(y, parts)
    without = set()

    def body(i, loss, *totals):
        part = {key: tf.gather(images, i) for key, images in x.items()}
        if replicas > 1:
            part = {key: _after([loss, *totals], v) for key, v in part.items()}
        of_part, found = once(model, part, tf.gather(y, i))
        without.update(n for n, g in enumerate(found) if g is None)
        return i + 1, loss + of_part, *step.added(totals, found)

    zeros = [tf.zeros(v.shape, v.dtype) for v in weights]
    variables = (0, tf.zeros((), model.variable_dtype), *zeros)
    replicas = _replicas()
    if replicas > 1:
        # Replicas cannot meet inside of a loop, and where variables are averaged or
        # statistics synchronized they must.
        for _ in range(parts):
            variables = body(*variables)
    else:
        variables = tf.while_loop(
            lambda i, *_: i < parts, body, variables, parallel_iterations=1
        )
    _, loss, *totals = variables
    totals = [None if n in without else g / parts for n, g in enumerate(totals)]
    return loss / parts, totals


def _split(values, parts):
    """(N, ...) -> (parts, N / parts, ...)."""
    values = tf.convert_to_tensor(values)
    size = values.shape[0]
    if size is not None:
        step.check_parts(size, parts)
        return tf.reshape(values, (parts, size // parts, *values.shape[1:]))
    size = tf.shape(values)[0]
    rule = f"{step.PARTS_RULE}. Received: accumulate={parts} and a batch of"
    with tf.control_dependencies(
        [tf.debugging.Assert(size % parts == 0, [rule, size])]
    ):
        shape = tf.concat([[parts, size // parts], tf.shape(values)[1:]], 0)
    result = tf.reshape(values, shape)
    result.set_shape((parts, None, *values.shape[1:]))
    return result


def _losses(model, x, y, logits):
    """The loss, and what to differentiate; updates the metrics."""
    loss = model.compute_loss(x, y, logits, training=True)
    # As Keras' own step counts it: the loss is this replica's share of the mean.
    images = tf.shape(x[model.keys[0]])[0]
    model._loss_tracker.update_state(loss * _replicas(), sample_weight=images)
    return loss, model.optimizer.scale_loss(loss)


def _after(done, images):
    """The images, from which nothing is computed before `done` is.

    Without it the executor runs whatever it can: all resolutions side by side.
    """
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        # XLA knows no control dependencies, and would merge the two passes.
        return xla.optimization_barrier(images, *done)[0]
    images = tf.convert_to_tensor(images)
    with tf.control_dependencies(done):
        return tf.identity(images)


def _values(variables):
    # Identities, because a Keras variable is a tensor already, but a changing one.
    return [tf.identity(v.value) for v in variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _replicas():
    return tf.distribute.get_strategy().num_replicas_in_sync


def _finite(model, loss, found):
    """Whether a step counts: the same boolean on every replica."""
    replicas = _replicas()
    values = step.judged(model, loss, found)
    if replicas > 1:  # the sum over replicas must be finite, too
        values = [value * replicas for value in values]
    each = [tf.reduce_all(tf.math.is_finite(value)) for value in values]
    wrong = 1 - tf.cast(tf.reduce_all(each), "float32")
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, wrong) == 0


def _either(condition, then, of_then, otherwise, of_otherwise):
    """`then(of_then)` or `otherwise(of_otherwise)`, which both update variables.

    Replicas meet where an optimizer updates, and may not do so under a condition: that
    one is stated where they have met (as in Keras' LossScaleOptimizer).
    """
    if tf.__internal__.distribute.strategy_supports_no_merge_call():
        tf.cond(condition, lambda: then(of_then), lambda: otherwise(of_otherwise))
        return

    def met(strategy, condition, of_then, of_otherwise):
        each = strategy.extended.call_for_each_replica
        tf.cond(
            strategy.experimental_local_results(condition)[0],
            lambda: each(then, args=(of_then,)),
            lambda: each(otherwise, args=(of_otherwise,)),
        )

    context = tf.distribute.get_replica_context()
    context.merge_call(met, args=(condition, of_then, of_otherwise))
