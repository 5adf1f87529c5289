"""The flags of a training run, parsed in this process."""

from absl import flags

from rs_keras import config
from rs_keras import flag_definitions

if "model" not in flags.FLAGS:
    flag_definitions.define_train_flags()


def parsed(*arguments):
    """`TrainConfig` of these arguments; what earlier calls have set is forgotten."""
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS(["train", *arguments])
    return config.train_config()
