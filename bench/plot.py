#!/usr/bin/env python3
"""Draws what bench/run.sh measured: plot.py RESULTS.jsonl DIRECTORY

For each workload an SVG of throughput by operation, of growth with the number of entries, of latencies, and of threads and
processes; each from the medians of the rounds. What was not measured is left out.
"""
import collections
import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402, after the choice of backend

OPERATIONS = ["put", "write_many", "get", "get_many", "get_miss", "iterate", "update", "update_steady", "remove"]
PERCENTILES = {"p50": "50", "p90": "90", "p99": "99", "p99.9": "99.9", "p99.99": "99.99", "max": "max"}


def load(path):
    """{(workload, size): {engine: {metric: median}}}"""
    samples = collections.defaultdict(list)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if "metric" in row:
            samples[row["workload"], row["size"], row["engine"], row["metric"]].append(row["value"])
    results = collections.defaultdict(lambda: collections.defaultdict(dict))
    for (workload, size, engine, metric), values in samples.items():
        results[workload, size][engine][metric] = statistics.median(values)
    return results


def bars(axes, engines, metrics):
    """A group of bars for each metric, a bar of it for each engine: millions of operations a second."""
    width = 0.8 / len(engines)
    for i, (engine, values) in enumerate(engines.items()):
        known = [(k, values[metric]) for k, metric in enumerate(metrics) if metric in values]
        axes.bar([k + i * width for k, _ in known], [1e3 / ns for _, ns in known], width, label=engine)
    axes.set_xticks([k + 0.4 - width / 2 for k in range(len(metrics))], metrics, rotation=20, ha="right")
    axes.set_ylabel("million operations a second")
    axes.set_yscale("log")


def latency(axes, engines, operation):
    for engine, values in engines.items():
        known = [(label, values[f"{operation}_{name}"]) for name, label in PERCENTILES.items()
                 if f"{operation}_{name}" in values]
        if known:
            axes.plot([label for label, _ in known], [ns for _, ns in known], marker="o", label=engine)
    axes.set_xlabel("percentile")
    axes.set_ylabel("ns")
    axes.set_yscale("log")


def growth(axes, results, workload, metric):
    sizes = sorted(size for name, size in results if name == workload)
    for engine in {engine: None for size in sizes for engine in results[workload, size]}:
        known = [(size, results[workload, size][engine][metric]) for size in sizes
                 if metric in results[workload, size][engine]]
        axes.plot([size for size, _ in known], [ns for _, ns in known], marker="o", label=engine)
    axes.set_xlabel("entries")
    axes.set_ylabel("ns")
    axes.set_xscale("log")
    axes.set_yscale("log")


def save(directory, name, title, axes):
    if axes.get_legend_handles_labels()[0]:
        axes.set_title(title)
        axes.grid(axis="y", alpha=0.3)
        axes.legend()
        axes.figure.savefig(directory / f"{name}.svg", bbox_inches="tight")
    plt.close(axes.figure)


def draw(directory, name, title, fill):
    axes = plt.subplots(figsize=(9, 5))[1]
    fill(axes)
    save(directory, name, title, axes)


def main(path, directory):
    results = load(path)
    directory.mkdir(parents=True, exist_ok=True)
    for (workload, size), engines in results.items():
        metrics = [metric for metric in OPERATIONS if any(metric in values for values in engines.values())]
        title = f"{workload}, {size:,} entries"
        draw(directory, f"{workload}-{size}", title, lambda axes: bars(axes, engines, metrics))
        for operation in ("get", "put"):
            draw(directory, f"{workload}-{size}-{operation}-latency", f"one {operation}: {title}",
                 lambda axes: latency(axes, engines, operation))
        parallel = sorted({metric for values in engines.values() for metric in values
                           if "_threads_" in metric or "_processes_" in metric})
        if parallel:
            draw(directory, f"{workload}-{size}-parallel", f"several threads or processes: {title}",
                 lambda axes: bars(axes, engines, parallel))
    for workload in {workload for workload, _ in results}:
        if sum(name == workload for name, _ in results) > 1:
            for metric in ("put", "get"):
                draw(directory, f"{workload}-{metric}-growth", f"{metric}: {workload}",
                     lambda axes: growth(axes, results, workload, metric))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
