"""What is said of a step whose loss or gradients are not finite."""

from rs_keras.data import folder

# Images named on the screen; the file has all.
_NAMED = 8


def images(found):
    """The images of a step as they are listed: `found` are their names, or None."""
    if found is None:
        return ["not known, since a tf.data service has loaded them"]
    return [folder.printable(name) for name in found]


def named(images, path):
    """The first of the images, a line each, and where the others are."""
    lines = images[:_NAMED]
    if len(images) > _NAMED:
        lines.append(f"and {len(images) - _NAMED} more in {path}")
    return "\n".join(lines)


def warning(config, count, where):
    """What is said if the run goes on after `count` such steps; None if it ends."""
    if config.on_nan == "stop" or count > config.max_skipped_steps:
        return None
    return (
        f"warning: {where} is skipped, {count} of at most {config.max_skipped_steps}: "
        "its loss or a gradient is not finite."
    )


def rule(config):
    """What must hold, as a sentence."""
    if config.on_nan == "stop":
        return (
            "Loss and gradients must be finite; --on_nan=skip would pass over such "
            "steps."
        )
    return (
        f"Loss and gradients must be finite but for {config.max_skipped_steps} steps "
        "(--max_skipped_steps)."
    )
