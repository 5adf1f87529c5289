"""One HTML page on a run: python -m tools.report --workdir=DIR [--compare=DIR[,DIR...]]

Results, sizes, exports, flags, and the papers' analyses as figures, in one file that
needs nothing else: the workdir's report.html. Other runs stand beside it with
--compare; individual networks among them (--method=single) make one curve.
"""

from rs_keras import config as config_lib
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib


def main():
    with config_lib.mistakes():
        config_lib.require("workdir")
        config_lib.check_json()
        config_lib.check_file("output", (".html",))
        values = config_lib.values()
        workdir = workdir_lib.Workdir(values.workdir)
        workdir.trained_model()
        others = [workdir_lib.Workdir(path) for path in values.compare]
        for other in others:
            other.trained_model("compare")
        output = values.output or workdir.path / "report.html"
        config_lib.check_json_is_apart(output)

        from rs_keras import run_report
        from rs_keras.checkpoints import keras_file
        from rs_keras.data import damage
        from rs_keras.report import page
        from rs_keras.training import devices

        devices.start(values.threads)
        members = run_report.groups(workdir, others)
        found = run_report.of_files(workdir, members, values.exports)
        left_out, photographs = found["left_out"], {}
        model = keras_file.load(workdir.path)
        found |= run_report.of_weights(model, left_out)
        if values.images == "on":
            with config_lib.mistakes(damage.DamagedImage):
                more, photographs = _of_images(
                    workdir, model, members, values, left_out
                )
            found |= more
        else:
            left_out.append("What needs the validation images (--images=off)")
        if values.json:
            workdir_lib.write_json(values.json, found)
        workdir_lib.write_text(output, page.page(found, photographs))
    written = [str(path) for path in (output, values.json) if path]
    print(f"Written: {', '.join(written)}")


def _of_images(workdir, model, members, values, left_out):
    from rs_keras import run_report

    size = values.batch_size
    try:
        return run_report.of_images(workdir, model, members, size, left_out)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{str(error).rstrip('.')} (--images=off leaves out what needs the "
            "validation images)"
        ) from error


def console():
    tool_flag_definitions.define_report_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()
