"""The model card of a run: python -m tools.model_card --workdir=DIR

Markdown: use, data, recipe, results at each resolution, sizes, licence, limits. Every
training writes it to the workdir's model_card.md at its end; this command writes it
anew, with a licence or with exports. A card that was changed by hand is kept.
"""

from rs_keras import config as config_lib
from rs_keras import model_card
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib


def main():
    with config_lib.mistakes():
        config_lib.require("workdir")
        config_lib.check_file("output", (".md",))
        values = config_lib.values()
        workdir = workdir_lib.Workdir(values.workdir)
        workdir.trained_model()
        if values.license is not None and not values.license.strip():
            raise ValueError(
                "--license must be an SPDX identifier, or words. Received: --license="
            )
        path = model_card.write(
            workdir,
            values.output,
            license=values.license,
            exports=values.exports,
            overwrite=values.overwrite,
        )
    print(f"Written: {path}")


def console():
    tool_flag_definitions.define_model_card_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()
