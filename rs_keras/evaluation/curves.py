"""Accuracy against resolution or cost, from what runs and evaluations wrote."""

import json
import pathlib

from rs_keras import workdir as workdir_lib


def read(path):
    """The results in a workdir or in a file; ValueError where there are none."""
    path = pathlib.Path(path)
    if path.is_dir():
        workdir = workdir_lib.Workdir(path)
        workdir.trained_model()
        path = workdir.results
    try:
        found = json.loads(path.read_text("utf-8"))
        for row in found["resolutions"].values():
            row["top1"], row["macs"]
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "A curve needs results.json of a run, or what `evaluate --json` wrote. "
            f"Received: {path}"
        ) from error


def points(results):
    """One curve of several results, from the largest resolution to the smallest.

    Returns:
        List of {"resolution", "top1", "macs", "trained": whether each network was
        trained at it, "networks": how many they are}.
    """
    rows = {}
    for found in results:
        for key, row in found["resolutions"].items():
            if not key.isdigit():
                raise ValueError(
                    "A curve needs networks of several resolutions. "
                    f"Received: one of several views, {key}"
                )
            trained = key not in found.get("untrained", {})
            rows.setdefault(int(key), []).append((row["top1"], row["macs"], trained))
    curve = []
    for resolution, same in sorted(rows.items(), reverse=True):
        tops, macs, trained = zip(*same, strict=True)
        if len(set(macs)) > 1:
            raise ValueError(
                "The networks of one curve must have the same multiply-adds at a "
                f"resolution. Received: {sorted(set(macs))} at {resolution}"
            )
        curve.append(
            {
                "resolution": resolution,
                "top1": sum(tops) / len(tops),
                "macs": macs[0],
                "trained": all(trained),
                "networks": len(tops),
            }
        )
    return curve


def differences(curve, base):
    """A curve whose points have a "difference" to those of another, in points."""
    tops = {point["resolution"]: point["top1"] for point in base}
    missing = [p["resolution"] for p in curve if p["resolution"] not in tops]
    if missing:
        raise ValueError(
            "--relative_to must have every resolution of the curves. "
            f"Received: none of {missing[0]}, but of {tuple(tops)}"
        )
    return [
        {**p, "difference": 100 * (p["top1"] - tops[p["resolution"]])} for p in curve
    ]
