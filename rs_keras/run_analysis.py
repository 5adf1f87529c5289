"""The papers' analyses of finished runs, on their own images."""

import itertools

import numpy as np

from rs_keras import progress as progress_lib
from rs_keras import run_data
from rs_keras import run_facts
from rs_keras.data import damage
from rs_keras.evaluation import analysis
from rs_keras.profiling import macs

# Images of each kind that `examples` picks.
_SHOWN = 8


def shared_images(workdirs):
    """The `sources.Source` of the validation images, which all runs must share.

    Raises:
        ValueError: they do not, or there are more or fewer images now than there were.
    """
    found = {}
    for workdir in workdirs:
        name = workdir.flag("dataset")
        if name not in found:
            found[name] = run_data.open_source(workdir, "val")
        then, now = run_facts.images(workdir), found[name].num_examples
        if then and then["val"] != now:
            raise ValueError(
                f"The validation images must be those of the run, {then['val']:,}. "
                f"Received: --dataset={name}, which has {now:,} now"
            )
    first = next(iter(found))
    for name, other in found.items():
        if _identity(name, other) != _identity(first, found[first]):
            raise ValueError(
                "All runs must have the validation images of the first. "
                f"Received: --dataset={name} in one of them"
            )
    return found[first]


def _identity(name, source):
    """What is the same for the same images; files may have moved."""
    return source.fingerprint or name, source.num_examples, source.class_names


def hits(workdir, model, source, keys=None, *, batch_size, work="evaluate"):
    """`analysis.hits` of a run, with progress.

    Args:
        workdir: of the run.
        model: its `Classifier`.
        source: `sources.Source` of the validation images.
        keys: resolutions; default: the trained branches.
        batch_size: N, images a batch.
        work: what the progress calls it.

    Raises:
        ValueError: the network has other classes.
        DamagedImage: one cannot be read.
    """
    run_data.check_classes(model, source)
    dataset = run_data.val_dataset(
        workdir,
        source,
        keys or model.resolutions,
        batch_size=batch_size,
        views=1 if keys else model.views,
        largest=model.resolutions[0],
    )
    progress = progress_lib.Progress(work, _batches(source, batch_size), "batches")
    with damage.damaged_images():
        return analysis.hits(model, dataset, keys, on_batch=progress.step)


def denser(model):
    """The trained resolutions of a network, those half-way, and one beyond each end.

    Around a single one: quarters of it, from a half to five.
    """
    sides = model.resolutions
    if len(sides) == 1:
        new = [sides[0] * quarters // 4 for quarters in (5, 3, 2)]
    else:
        new = [(a + b) // 2 for a, b in itertools.pairwise(sides)]
        new += [2 * sides[0] - new[0], 2 * sides[-1] - new[-1]]
    new = [r for r in new if r >= model.minimum_resolution]
    return tuple(sorted({*sides, *new}, reverse=True))


def dense_curve(model, found):
    """What `hits` found, as a curve of `evaluation.curves`."""
    return [
        {
            "resolution": r,
            "top1": float(np.mean(row)),
            "macs": macs.multiply_adds(model, r),
            "trained": r in model.resolutions,
            "networks": 1,
        }
        for r, row in found.items()
    ]


def features(workdir, model, source, *, batch_size, work="features"):
    """RS-Nets, Fig. 3: features of the validation images, prepared in two ways.

    Args:
        workdir, model, source, batch_size, work: as of `hits`.

    Returns:
        {str(resolution): `analysis.cumulative`}.

    Raises:
        ValueError: the network is one of several views, or has other classes.
        DamagedImage: an image cannot be read.
    """
    if model.views > 1:
        raise ValueError(
            "The analysis is of several resolutions. "
            f"Received: --workdir={workdir.path} with {model.views} views"
        )
    run_data.check_classes(model, source)
    total, largest = source.num_examples, model.resolutions[0]
    prepared, names = run_data.calibration_images(
        workdir, source, total, batch_size, largest
    )
    steps = 2 * _batches(source, batch_size) * len(model.resolutions)
    step = progress_lib.Progress(work, steps, "batches").step
    found = {}
    with damage.damaged_images(names):
        for r in model.resolutions:
            tested = run_data.val_dataset(
                workdir, source, (r,), batch_size=batch_size, largest=largest
            )
            batches = (images[r] for images, _ in tested.as_numpy_iterator())
            train = analysis.features(model, prepared(r), r, on_batch=step)
            test = analysis.features(model, batches, r, on_batch=step)
            found[str(r)] = analysis.cumulative(train, test)
    return found


def examples(workdir, source, side, labels, only):
    """Some of the images that only one resolution gets right.

    Args:
        workdir, source: as of `hits`.
        side: the resolution at which they are shown.
        labels: (N,) ints.
        only: {kind: positions of its images}.

    Returns:
        {kind: [(image (r, r, 3) uint8, its class), ...]}, of as many classes as there
        are.
    """
    shown = {kind: _pick(positions, labels) for kind, positions in only.items()}
    wanted = {i for positions in shown.values() for i in positions}
    dataset = run_data.val_dataset(workdir, source, (side,), batch_size=1)
    found = {}
    for index, (images, _) in enumerate(dataset.as_numpy_iterator()):
        if index in wanted:
            found[index] = images[side][0]
        if len(found) == len(wanted):
            break
    names = source.class_names
    return {
        kind: [(found[i], names[labels[i]]) for i in positions]
        for kind, positions in shown.items()
    }


def _pick(positions, labels):
    first, others, seen = [], [], set()
    for index in positions:
        label = labels[index]
        (others if label in seen else first).append(int(index))
        seen.add(label)
    return [*first, *others][:_SHOWN]


def _batches(source, batch_size):
    return -(-source.num_examples // batch_size)


def only_one(found, ends):
    """{kind: positions} of the images that only one of two resolutions gets right.

    Args:
        found: {resolution: bool (N,)}, of `analysis.hits`.
        ends: the two resolutions.
    """
    one, other = (found[end] for end in ends)
    return {
        f"only at {ends[0]}": np.flatnonzero(one & ~other),
        f"only at {ends[1]}": np.flatnonzero(other & ~one),
    }
