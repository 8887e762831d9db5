"""Engines: where flows run. In this process, on threads, or on the machines of a Ray cluster.

`tale_lab.runs.runner.run_jobs` takes either, with the same results: an engine only decides where a flow runs
and where its calls are made. Only this process writes the results file.
"""

from tale_lab.runs.engines.local import Engine, LocalEngine, Make, Memory
from tale_lab.runs.engines.ray import RayEngine

__all__ = ["Engine", "LocalEngine", "Make", "Memory", "RayEngine"]
