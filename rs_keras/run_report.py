"""What a report shows of a run: gathered from its files, and from its images."""

from rs_keras import pictures
from rs_keras import run_analysis
from rs_keras import run_facts
from rs_keras.checkpoints import keras_file
from rs_keras.evaluation import analysis
from rs_keras.evaluation import curves as curves_lib
from rs_keras.training import tensorboard

# The flags that say which network it is, whatever it was trained at.
_NETWORK = ("model", "width", "weight_bits", "activation_bits", "rest_bits", "shortcut")


def groups(workdir, others):
    """The runs that make one curve: a run by itself, individual networks together.

    Returns:
        {title: [`Workdir`, ...]}, the run itself first.

    Raises:
        ValueError: a run is there twice.
    """
    titles = run_facts.titles((workdir, *others))
    found, single = {titles[workdir]: [workdir]}, {}
    for other in others:
        if other.flag("method") == "single":
            single.setdefault(_network(other), []).append(other)
        else:
            found[titles[other]] = [other]
    for network, members in single.items():
        title = f"{len(members)} individual networks"
        if len(single) > 1:
            title += f" ({', '.join(filter(None, network))})"
        found[titles[members[0]] if len(members) == 1 else title] = members
    return found


def _network(workdir):
    flags = run_facts.flags(workdir)
    return tuple(flags.get(name, "") for name in _NETWORK)


def of_files(workdir, members, exports=()):
    """What the files of the runs say.

    Args:
        workdir: of the run.
        members: of `groups`.
        exports: as of `run_facts.exports`.

    Returns:
        {"title", "members": {title: paths}, "flags": {name: text}, "results": of
        results.json, "images": as of `run_facts.images`, "training": as of
        `run_facts.training`, "metrics": lines of metrics.jsonl, "bytes": of
        model.keras, "exports": as of `run_facts.exports`, "curves": {title:
        `curves.points`}, "differences": {title: `curves.differences`}, "alpha":
        {branch: {epoch: share}}, "left_out": [why something is not there]}.

    Raises:
        ValueError: the runs have other classes, or a file is not that of a run.
    """
    title, left_out, curves = next(iter(members)), [], {}
    read = {run: run_facts.results(run) for runs in members.values() for run in runs}
    results = read[workdir]
    for name, runs in members.items():
        for run in runs:
            if read[run]["classes"] != results["classes"]:
                raise ValueError(
                    "Runs that are compared must have the same classes. "
                    f"Received: --compare with {run.path}, which has others"
                )
        if all(run.flag("views", "1") == "1" for run in runs):
            curves[name] = curves_lib.points([read[run] for run in runs])
        else:
            left_out.append(f"Curves of {name}: its branches are views")
    alpha = {}
    if workdir.flag("method") != "single":  # one branch has all of it
        alpha = tensorboard.read_shares(workdir.tensorboard)
        if not alpha:
            left_out.append("The ensemble over training: no files in tensorboard/")
    return {
        "title": title,
        "members": {
            name: [str(run.path) for run in runs] for name, runs in members.items()
        },
        "flags": run_facts.flags(workdir),
        "results": results,
        "images": run_facts.images(workdir),
        "training": run_facts.training(workdir),
        "metrics": run_facts.lines(workdir.metrics),
        "bytes": workdir.model.stat().st_size,
        "exports": run_facts.exports(workdir, exports),
        "curves": curves,
        "differences": _differences(curves, members, left_out),
        "alpha": alpha,
        "left_out": left_out,
    }


def _differences(curves, members, left_out):
    """RS-Nets, Fig. 5: of each network to individual ones of its kind."""
    kinds = {
        name: (_network(runs[0]), runs[0].flag("method"))
        for name, runs in members.items()
    }
    found = {}
    for name, points in curves.items():
        network, method = kinds[name]
        bases = [b for b in curves if kinds[b] == (network, "single")]
        if method == "single" or not bases:
            continue
        try:
            found[name] = curves_lib.differences(points, curves[bases[0]])
        except ValueError:
            left_out.append(
                f"Interaction effects of {name}: {bases[0]} do not have all of its "
                "resolutions"
            )
    return found


def of_weights(model, left_out):
    """{"batch_norm": `analysis.batch_norm`}, or nothing and the reason."""
    try:
        return {"batch_norm": analysis.batch_norm(model)}
    except ValueError:
        left_out.append("Batch normalization by resolution: all share one")
        return {}


def of_images(workdir, model, members, batch_size, left_out):
    """What the networks say of the validation images.

    Args:
        workdir, members: as of `of_files`.
        model: the `Classifier` of the run.
        batch_size: N, images a batch.
        left_out: list to which reasons are added.

    Returns:
        ({"dense": a curve, "hit_miss": {title: `analysis.hit_miss`}, "features":
        {resolution: `analysis.cumulative`}, "shares": of its curves, "ends": two
        resolutions, "only_one": {kind: number}, "classes": `analysis.class_changes`},
        {kind: [(bytes of a .png file, class), ...]}); what cannot be is missing.

    Raises:
        ValueError: the images cannot be read, or are others than those of the runs.
        DamagedImage: one is damaged.
    """
    runs = [run for group in members.values() for run in group]
    source = run_analysis.shared_images(runs)
    passes, hits = len(runs) + (model.views == 1), {}
    keys = run_analysis.denser(model) if model.views == 1 else None
    for number, run in enumerate(runs, 1):
        work = f"evaluate ({number} of {passes})"
        own = run is workdir
        labels, hits[run] = run_analysis.hits(
            run,
            model if own else keras_file.load(run.path),
            source,
            keys if own else None,
            batch_size=batch_size,
            work=work,
        )
    mine, found = hits[workdir], {}
    if model.views == 1:
        found["dense"] = run_analysis.dense_curve(model, mine)
        hits[workdir] = {r: mine[r] for r in model.resolutions}
        found["features"] = run_analysis.features(
            workdir,
            model,
            source,
            batch_size=batch_size,
            work=f"features ({passes} of {passes})",
        )
        found["shares"] = analysis.SHARES.tolist()
    else:
        left_out.append("Features, other resolutions: the branches are views")
    found["hit_miss"] = _hit_miss(members, hits, left_out)
    ends = (model.resolutions[0], model.resolutions[-1])
    if ends[0] == ends[1]:
        left_out.append("Changes of classes: there is one resolution")
        return found, {}
    only = run_analysis.only_one(mine, ends)
    found["ends"] = ends
    found["only_one"] = {kind: len(positions) for kind, positions in only.items()}
    found["classes"] = analysis.class_changes(
        labels, *(mine[end] for end in ends), source.class_names
    )
    shown = run_analysis.examples(workdir, source, ends[0], labels, only)
    return found, {
        kind: [(pictures.png(image), name) for image, name in rows]
        for kind, rows in shown.items()
    }


def _hit_miss(members, hits, left_out):
    found = {}
    for title, runs in members.items():
        joined = {key: row for run in runs for key, row in hits[run].items()}
        if len(joined) < sum(len(hits[run]) for run in runs):
            left_out.append(f"Hits and misses of {title}: two have one resolution")
        elif len(joined) > 1:
            if len(runs) > 1:
                joined = dict(sorted(joined.items(), reverse=True))
            found[title] = analysis.hit_miss(joined)
    return found
