#!/usr/bin/env python3
"""Draws what bench/run.sh measured: plot.py DIRECTORY RESULTS.jsonl...

For each workload and size an SVG of throughput by operation, of latencies, of threads and processes, and of space and opening;
for each workload one of growth with the number of entries. Medians of the rounds; what was not measured is left out.
"""
import pathlib
import sys

import matplotlib
import matplotlib.ticker

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402, after the choice of backend

import results  # noqa: E402

plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "odm", "axes.grid": True, "grid.alpha": 0.3})

OPERATIONS = ["put", "write_many", "get", "get_many", "get_miss", "iterate", "update", "update_steady", "increment", "remove"]
GROWTH = ["put", "get", "get_miss", "get_many", "iterate", "update"]
PERCENTILES = {"p50": "50", "p90": "90", "p99": "99", "p99.9": "99.9", "p99.99": "99.99", "max": "max"}
PARALLEL = ["get_threads", "put_threads", "get_processes", "put_processes"]
COLOURS = {name: f"C{i}" for i, name in enumerate(
    ["odm", "lmdb", "tkrzw", "rocksdb", "abseil", "floor", "crate", "sled", "redb"])}  # the same in all plots


def bars(axes, engines, metrics, height):
    """A group of bars for each metric, a bar of it for each engine."""
    width = 0.8 / len(engines)
    for i, (engine, figures) in enumerate(engines.items()):
        known = [(k, height(figures[metric].median)) for k, metric in enumerate(metrics) if metric in figures]
        if not known:
            continue
        axes.bar([k + i * width for k, _ in known], [value for _, value in known], width, label=engine,
                 color=COLOURS.get(engine))
    axes.set_xticks([k + 0.4 - width / 2 for k in range(len(metrics))], metrics, rotation=20, ha="right")


def lines(axes, engines, points):
    """A line for each engine through the points that it has: [(x, metric)]."""
    for engine, figures in engines.items():
        known = [(x, figures[metric].median) for x, metric in points if metric in figures]
        if known:
            axes.plot(*zip(*known), marker="o", label=engine, color=COLOURS.get(engine))
    axes.set_yscale("log")


def save(figure, directory, name, title):
    """Nothing if nothing was drawn."""
    drawn = [axes for axes in figure.axes if axes.get_legend_handles_labels()[0]]
    for axes in set(figure.axes) - set(drawn):
        axes.set_visible(False)
    if drawn:
        labels = {label: handle for axes in drawn for handle, label in zip(*axes.get_legend_handles_labels())}
        figure.legend(labels.values(), labels.keys(), loc="upper center", bbox_to_anchor=(0.5, 0), ncol=len(labels))
        figure.suptitle(title)
        figure.savefig(directory / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def present(engines, metrics):
    return [metric for metric in metrics if any(metric in figures for figures in engines.values())]


def throughput(engines):
    figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
    bars(axes, engines, present(engines, OPERATIONS), lambda ns: 1e3 / ns)
    axes.set_ylabel("million operations a second")
    axes.set_yscale("log")
    return figure


def latency(engines):
    figure, both = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axes, operation, name in zip(both, ("get", "put"), ("one get", "one update")):
        lines(axes, engines, [(label, f"{operation}_{suffix}") for suffix, label in PERCENTILES.items()])
        axes.set(title=name, xlabel="percentile", ylabel="ns")
    return figure


def parallel(engines):
    figure, four = plt.subplots(1, 4, figsize=(12, 4), sharey=True, layout="constrained")
    counts = sorted({int(metric.rsplit("_", 1)[1]) for figures in engines.values() for metric in figures
                     if metric.rsplit("_", 1)[0] in PARALLEL})
    for axes, kind in zip(four, PARALLEL):
        lines(axes, engines, [(str(count), f"{kind}_{count}") for count in counts])
        axes.set(title=kind.replace("_", ", ").replace("put", "update"), xlabel="at once", ylabel="ns of all, per operation")
    return figure


def space(engines):
    figure, (disk, opening) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    bars(disk, engines, present(engines, ["disk", "disk_steady"]), lambda ratio: ratio)
    disk.set_ylabel("bytes on disk per byte of payload")
    bars(opening, engines, present(engines, ["open_closed", "open_killed", "open_rebuild", "close"]), lambda ns: ns / 1e6)
    opening.set_ylabel("ms")
    opening.set_yscale("log")
    return figure


def growth(series, workload):
    """By the number of entries."""
    sizes = sorted(size for name, size in series if name == workload)
    figure, six = plt.subplots(2, 3, figsize=(12, 7), layout="constrained")
    if len(sizes) < 2:
        return figure
    for axes, metric in zip(six.flat, GROWTH):
        engines = {engine: {size: series[workload, size][engine][metric] for size in sizes
                            if metric in series[workload, size].get(engine, {})}
                   for size in sizes for engine in series[workload, size]}
        lines(axes, engines, [(size, size) for size in sizes])
        axes.set(title=metric, xlabel="entries", ylabel="ns", xscale="log")
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    return figure


def main(directory, paths):
    series = results.load(paths).series
    directory.mkdir(parents=True, exist_ok=True)
    for (workload, size), engines in series.items():
        for draw in (throughput, latency, parallel, space):
            save(draw(engines), directory, f"{workload}-{size}-{draw.__name__}", f"{workload}, {size:,} entries")
    for workload in dict.fromkeys(workload for workload, _ in series):
        save(growth(series, workload), directory, f"{workload}-growth", f"{workload}: growth")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), [pathlib.Path(path) for path in sys.argv[2:]])
