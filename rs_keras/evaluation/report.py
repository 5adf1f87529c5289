"""Results of an evaluation as a table to read."""


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
