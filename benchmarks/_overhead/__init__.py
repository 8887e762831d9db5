"""The parts of ``benchmarks/overhead.py``, one file for each thing that is measured."""
