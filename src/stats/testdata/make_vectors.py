"""Writes vectors.json: samples and what numpy computes of them. Run: python3 make_vectors.py"""

import json
import pathlib

import numpy

PERCENTS = [0, 1, 5, 12.5, 25, 50, 75, 90, 95, 99, 99.9, 100]


def describe(name, values):
    values = numpy.asarray(values, dtype=numpy.float64)
    return {
        "name": name,
        "values": values.tolist(),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "median": float(numpy.median(values)),
        "min": float(values.min()),
        "max": float(values.max()),
        "percentiles": [[percent, float(numpy.percentile(values, percent))] for percent in PERCENTS],
    }


def main():
    random = numpy.random.default_rng(20240917)
    draw = {
        "normal": lambda size: random.normal(12.5, 0.75, size),
        "lognormal": lambda size: random.lognormal(1.0, 1.5, size),
        "exponential": lambda size: random.exponential(3.0, size),
        "uniform": lambda size: random.uniform(-5.0, 5.0, size),
        "bimodal": lambda size: numpy.where(random.random(size) < 0.9, 10.0, 40.0) + random.normal(0, 0.1, size),
        "ties": lambda size: random.integers(0, 4, size).astype(numpy.float64),
        "huge": lambda size: random.normal(5e120, 1e120, size),
        "tiny": lambda size: random.normal(5e-120, 1e-120, size),
    }
    cases = [
        describe(f"{name}-{size}", sample(size)) for name, sample in draw.items() for size in (1, 2, 3, 10, 1000)
    ]
    cases.append(describe("constant-10", [0.1] * 10))
    cases.append(describe("zeros-3", [0.0] * 3))
    cases.append(describe("nanoseconds-around-an-hour", 3.6e12 + random.integers(0, 1000, 100)))
    lines = ",\n".join(json.dumps(case) for case in cases)
    pathlib.Path(__file__).with_name("vectors.json").write_text(f"[\n{lines}\n]\n")


main()
