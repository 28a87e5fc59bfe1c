"""Reads what bench/run.sh wrote: JSON lines of the machine, of the engines' settings, of samples and of failures."""
import collections
import dataclasses
import json
import statistics


@dataclasses.dataclass
class Figure:
    """The rounds of one metric."""
    unit: str
    values: list

    @property
    def median(self):
        return statistics.median(self.values)


@dataclasses.dataclass
class Results:
    machines: list   # one a file
    settings: dict   # (engine, workload): text
    series: dict     # (workload, size): {engine: {metric: Figure}}, in the order they were measured
    failures: list


def load(paths):
    """Several files are taken as one run: more rounds, more sizes, more engines."""
    results = Results([], {}, collections.defaultdict(lambda: collections.defaultdict(dict)), [])
    for path in paths:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if "cpu" in row:
                results.machines.append(row)
            elif "settings" in row:
                results.settings[row["engine"], row["workload"]] = row["settings"]
            elif "failed" in row:
                results.failures.append(row)
            else:
                metrics = results.series[row["workload"], row["size"]][row["engine"]]
                metrics.setdefault(row["metric"], Figure(row["unit"], [])).values.append(row["value"])
    return results
