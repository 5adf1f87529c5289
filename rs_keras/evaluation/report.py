"""Results of an evaluation as a table to read, and as a line of a log."""


def table(values):
    """The results as lines of text."""
    lines = ["resolution       top-1   top-5   mean/class   multiply-adds"]
    rows = dict(values["resolutions"])
    if values["ensemble"]:
        rows["ensemble"] = values["ensemble"]
    for key, row in rows.items():
        top5 = "     -" if row["top5"] is None else f"{row['top5']:6.3f}"
        cost = f"{row['macs'] / 1e6:12.1f} M" if "macs" in row else ""
        lines.append(
            f"{key:<14} {row['top1']:7.3f}  {top5}   {row['mean_class']:10.3f}  {cost}"
        )
    if values["ensemble"]:
        shares = ", ".join(f"{w:.2f}" for w in values["alpha"])
        lines.append(f"weights of the trained resolutions in the ensemble: {shares}")
    lines.append(f"trainable parameters: {values['parameters']:,}")
    return "\n".join(lines)


def logs(found):
    """What `evaluator.evaluate` returned, as {"val_loss": …, "val_top1_224": …}."""
    values = {
        "val_loss" if name == "loss" else f"val_loss_{name}": value
        for name, value in found["losses"].items()
        if name != "distillation_raw"
    }
    for key, row in {**found["resolutions"], "ensemble": found["ensemble"]}.items():
        values[f"val_top1_{key}"] = row["top1"]
        if row["top5"] is not None:
            values[f"val_top5_{key}"] = row["top5"]
    return values
