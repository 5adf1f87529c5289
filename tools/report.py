"""One HTML page on a run: python -m tools.report --workdir=DIR [--compare=DIR[,DIR...]]

Results, sizes, exports, flags, and the papers' analyses as figures, in one file that
needs nothing else: the workdir's report.html. Other runs stand beside it with
--compare; individual networks among them (--method=single) make one curve.
"""

from rs_keras import config as config_lib
from rs_keras import run_facts
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib


def main():
    with config_lib.mistakes():
        config_lib.require("workdir")
        config_lib.check_json()
        config_lib.check_file("output", (".html",))
        values = config_lib.values()
        workdir = workdir_lib.Workdir(values.workdir)
        others = [workdir_lib.Workdir(path) for path in values.compare]
        for one in (workdir, *others):
            one.trained_model()
        groups = _groups(workdir, others)
        found = _of_files(workdir, groups, values.exports)

        from rs_keras.checkpoints import keras_file
        from rs_keras.data import damage
        from rs_keras.evaluation import analysis
        from rs_keras.report import page
        from rs_keras.training import devices
        from rs_keras.training import tensorboard

        devices.start(values.threads)
        model = keras_file.load(workdir.path)
        found["alpha"] = tensorboard.read_shares(workdir.tensorboard)
        if not found["alpha"]:
            found["left_out"].append(
                "The ensemble over training: no files in tensorboard/"
            )
        try:
            found["batch_norm"] = analysis.batch_norm(model)
        except ValueError as error:
            found["left_out"].append(f"Batch normalization: {error}")
        photographs = {}
        if values.images == "on":
            with config_lib.mistakes(damage.DamagedImage):
                photographs = _of_images(found, workdir, groups, model, values)
        else:
            found["left_out"].append("What needs the validation images (--images=off)")
        output = values.output or workdir.path / "report.html"
        workdir_lib.write_text(output, page.page(found, photographs))
        if values.json:
            workdir_lib.write_json(values.json, found)
    written = [str(path) for path in (output, values.json) if path]
    print(f"Written: {', '.join(written)}")


def _groups(workdir, others):
    """{title: the runs that make one curve}, the run itself first."""
    titles = run_facts.titles((workdir, *others))
    groups, single = {titles[workdir]: [workdir]}, []
    for other in others:
        if other.flag("method") == "single" and other.flag("views", "1") == "1":
            single.append(other)
        else:
            groups[titles[other]] = [other]
    if single:
        many = f"{len(single)} individual networks"
        groups[titles[single[0]] if len(single) == 1 else many] = single
    return groups


def _of_files(workdir, groups, exports):
    """What the page shows of the files of the runs."""
    from rs_keras.evaluation import curves as curves_lib

    title, left_out, curves = next(iter(groups)), [], {}
    results = curves_lib.read(workdir.path)
    for name, members in groups.items():
        read = [curves_lib.read(one.path) for one in members]
        for one, other in zip(members, read, strict=True):
            if other["classes"] != results["classes"]:
                raise ValueError(
                    "Runs that are compared must have the same classes. "
                    f"Received: --compare with {one.path}, which has others"
                )
        if all(one.flag("views", "1") == "1" for one in members):
            curves[name] = curves_lib.points(read)
        else:
            left_out.append(
                f"Curves of {name}: its branches are views of one resolution"
            )
    return {
        "title": title,
        "flags": run_facts.flags(workdir),
        "results": results,
        "images": run_facts.images(workdir),
        "training": run_facts.training(workdir),
        "metrics": run_facts.lines(workdir.metrics),
        "bytes": workdir.model.stat().st_size,
        "exports": run_facts.exports(workdir, exports),
        "curves": curves,
        "differences": _differences(curves, title, groups, left_out),
        "left_out": left_out,
    }


def _differences(curves, title, groups, left_out):
    """RS-Nets, Fig. 5: {title: `curves.differences`} to the individual networks."""
    from rs_keras.evaluation import curves as curves_lib

    base = [
        name
        for name, members in groups.items()
        if name in curves and name != title and members[0].flag("method") == "single"
    ]
    if not base:
        return {}
    base, found = base[0], {}
    sides = {point["resolution"] for point in curves[base]}
    for name, points in curves.items():
        missing = [p["resolution"] for p in points if p["resolution"] not in sides]
        if missing:
            left_out.append(
                f"Interaction effects of {name}: no individual network of {missing[0]}"
            )
        elif name != base:
            found[name] = curves_lib.differences(points, curves[base])
    return found


def _of_images(found, workdir, groups, model, values):
    """Adds what the validation images show; returns photographs for the page."""
    from rs_keras import pictures
    from rs_keras import run_analysis
    from rs_keras.checkpoints import keras_file
    from rs_keras.evaluation import analysis

    runs = [one for members in groups.values() for one in members]
    try:
        source = run_analysis.shared_images(runs)
    except OSError as error:
        raise ValueError(
            "The validation images cannot be read; --images=off leaves out what needs "
            f"them. Received: {error}"
        ) from error
    size, passes, hits = values.batch_size, len(runs) + (model.views == 1), {}
    keys = run_analysis.denser(model) if model.views == 1 else None
    for number, run in enumerate(runs, 1):
        network = model if run is workdir else keras_file.load(run.path)
        labels, hits[run] = run_analysis.hits(
            run,
            network,
            source,
            keys if run is workdir else None,
            batch_size=size,
            work=f"evaluate ({number} of {passes})",
        )
    mine = hits[workdir]
    if model.views == 1:
        found["dense"] = run_analysis.dense_curve(model, mine)
        hits[workdir] = {r: mine[r] for r in model.resolutions}
    found["hit_miss"] = {}
    for title, members in groups.items():
        joined = {key: row for one in members for key, row in hits[one].items()}
        if len(joined) < sum(len(hits[one]) for one in members):
            found["left_out"].append(
                f"Hits and misses of {title}: two of them have the same resolution"
            )
        elif len(joined) > 1:
            if len(members) > 1:
                joined = dict(sorted(joined.items(), reverse=True))
            found["hit_miss"][title] = analysis.hit_miss(joined)
    if model.views > 1:
        found["left_out"].append("Features: the branches are views of one resolution")
    else:
        work = f"features ({passes} of {passes})"
        features = run_analysis.features(
            workdir, model, source, batch_size=size, work=work
        )
        found["features"], found["shares"] = features, analysis.SHARES.tolist()
    ends = (model.resolutions[0], model.resolutions[-1])
    if ends[0] == ends[1]:
        found["left_out"].append("Changes of classes: there is one resolution")
        return {}
    only = run_analysis.only_one(mine, ends)
    found["ends"] = ends
    found["only_one"] = {kind: len(positions) for kind, positions in only.items()}
    found["classes"] = analysis.class_changes(
        labels, *(mine[end] for end in ends), source.class_names
    )
    examples = run_analysis.examples(workdir, source, ends[0], labels, only)
    return {
        kind: [(pictures.png(image), name) for image, name in rows]
        for kind, rows in examples.items()
    }


def console():
    tool_flag_definitions.define_report_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()
