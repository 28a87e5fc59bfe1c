#!/usr/bin/env python3
"""Prints what bench/run.sh measured as Markdown tables."""
import argparse
import pathlib

from tabulate import tabulate

import results

OURS = "odm"

ROWS = {
    "put": "put",
    "write_many": "put, 64 a call",
    "get": "get, hit",
    "get_miss": "get, miss",
    "get_many": "get, 64 a call",
    "iterate": "iterate",
    "update": "update",
    "update_steady": "update, log turned over twice",
    "increment": "increment",
    "remove": "remove",
    "get_p50": "one get, with the clock: median",
    "get_p99": "99 %",
    "get_p99.99": "99.99 %",
    "get_max": "longest",
    "put_p50": "one update, with the clock: median",
    "put_p99": "99 %",
    "put_p99.99": "99.99 %",
    "put_max": "longest",
    "close": "close",
    "open_closed": "open, closed cleanly",
    "first_get_closed": "first get of that process",
    "open_killed": "open, killed",
    "first_get_killed": "first get of that process",
    "open_rebuild": "open, index lost",
    "rebuild": "log read a second of it",
    "get_threads_1": "get, 1 thread",
    "get_threads_2": "get, 2 threads together",
    "get_processes_2": "get, 2 processes together",
    "put_threads_1": "update, 1 thread",
    "put_threads_2": "update, 2 threads together",
    "put_processes_2": "update, 2 processes together",
    "get_outgrown": "get, map larger than memory",
    "read_outgrown": "read from the disk for it",
    "update_outgrown": "update, map larger than memory",
    "disk": "bytes on disk per byte of payload",
    "disk_steady": "the same after the updates",
}

SINGLE = {"write_many": "put", "get_many": "get"}  # What a peer without such a call is compared by.


def amount(value, unit):
    """How a figure of this magnitude is written."""
    if unit != "ns":
        return f"{value:.2f}" + (f" {unit}" if unit != "ratio" else "")
    for limit, divisor, decimals, name in ((100, 1, 1, "ns"), (1e4, 1, 0, "ns"), (1e6, 1e3, 0, "µs"), (1e8, 1e6, 1, "ms")):
        if value < limit:
            return f"{value / divisor:.{decimals}f} {name}"
    return f"{value / 1e6:.0f} ms"


def cell(engines, engine, metric, spread):
    """The median, and how many times ours it is."""
    figure, ours = engines[engine].get(metric), engines.get(OURS, {}).get(metric)
    if not figure:
        instead = engines[engine].get(SINGLE.get(metric))
        return f"({instead.median / ours.median:.1f} ×)" if instead and ours else "–"
    text = amount(figure.median, figure.unit)
    if spread and len(figure.values) > 1:
        text += f" [{amount(min(figure.values), figure.unit)}–{amount(max(figure.values), figure.unit)}]"
    if ours and engine != OURS and ours.median > 0:
        ratio = figure.median / ours.median
        text += f" ({ratio:.1f} ×)" if ratio >= 1 else f" ({ratio:.2g} ×)"
    return text


def print_table(headers, rows):
    print(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True,
                   colalign=["left"] + ["right"] * (len(headers) - 1)), end="\n\n")


def entries(size):
    for unit, name in ((10**6, " M"), (10**3, " k")):
        if size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def print_series(series, spread):
    for (workload, size), engines in series.items():
        print(f"### {workload}, {entries(size)} entries\n")
        rows = [[label] + [cell(engines, engine, metric, spread) for engine in engines]
                for metric, label in ROWS.items() if any(metric in metrics for metrics in engines.values())]
        print_table([""] + list(engines), rows)


# ---- goals: what is promised, how it is computed, the limit. `f(metric, engine)` is a median; ours without an engine ----

def times(engine, *metrics):
    """How many times faster we are than a peer, in the worst of the metrics that both have."""
    def compute(f):
        ratios = [f(metric, engine) / f(metric) for metric in metrics if f(metric, engine) and f(metric)]
        return min(ratios) if ratios else None
    return compute


def single_by_many(f):
    return f("get") / f("get_many")


GOALS = [
    ("get ≥ 5 × LMDB", times("lmdb", "get"), 5),
    ("get ≥ 1 × Abseil", times("abseil", "get"), 1),
    ("get ≤ 1.7 × the floor", lambda f: f("get") / f("get", "floor"), -1.7),
    ("put ≥ 4 × LMDB", times("lmdb", "put"), 4),
    ("put ≥ 1.5 × tkrzw", times("tkrzw", "put"), 1.5),
    ("update in the steady state ≥ 2 × LMDB", times("lmdb", "update_steady"), 2),
    ("64 gets a call ≥ 4 × single, integer keys", single_by_many, 4),
    ("miss ≤ hit", lambda f: f("get_miss") / f("get"), -1),
    ("iterate ≥ 1 × LMDB", times("lmdb", "iterate"), 1),
    ("everything ≥ 2 × the Rust crate", times("crate", "put", "get", "get_miss", "update", "update_steady"), 2),
    ("99.99 % of updates ≤ 100 µs", lambda f: f("put_p99.99") / 1e3, -100),
    ("open < 1 ms, closed or killed", lambda f: max(f("open_closed"), f("open_killed")) / 1e6, -1),
    ("rebuild ≥ 1 GB/s", lambda f: f("rebuild"), 1),
    ("bytes on disk ≤ 1.5 × payload", lambda f: f("disk"), -1.5),
]


def goal(engines, key, compute, limit):
    """A limit below 0 is an upper one."""
    def f(metric, engine=OURS):
        figure = engines.get(engine, {}).get(metric)
        return figure.median if figure else None
    try:
        value = compute(f)
    except TypeError:  # A figure that was not measured.
        value = None
    if value is None or (compute is single_by_many and key == "seed"):
        return "–"
    met = value >= limit if limit > 0 else value <= -limit
    return f"{value:.3g}" + ("" if met else ", **missed**")


def print_goals(series):
    known = {name: engines for name, engines in series.items() if OURS in engines}
    rows = [[label] + [goal(engines, workload, compute, limit) for (workload, _), engines in known.items()]
            for label, compute, limit in GOALS]
    rows = [row for row in rows if any(text != "–" for text in row[1:])]
    if not rows:
        return
    print("### Goals\n")
    print_table([""] + [f"{workload}, {entries(size)}" for workload, size in known], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=pathlib.Path, help="results of runs, taken as one run")
    parser.add_argument("--spread", action="store_true", help="show the lowest and the highest round, too")
    arguments = parser.parse_args()
    found = results.load(arguments.files)

    for machine in {(m["cpu"], m["cores"], m["memory_bytes"] >> 30, m["kernel"], m["file_system"]) for m in found.machines}:
        print("{}, {} cores, {} GiB, Linux {}, {}\n".format(*machine))
    for text in dict.fromkeys(f"- {engine}: {text}" for (engine, _), text in found.settings.items()):
        print(text)
    print()
    print_series(found.series, arguments.spread)
    print_goals(found.series)
    for row in found.failures:
        print("{engine} failed in phase {failed} of {workload}, {size} entries, round {round}: {how}".format(**row))


if __name__ == "__main__":
    main()
