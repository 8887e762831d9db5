"""Estimators: from a question to the output tokens that its answer needs. Each is a flow."""

from tale_core._lazy import lazy_names as _lazy_names

# The names, and where they are defined, are in __init__.pyi: the learned estimators load when they are used.
__getattr__, __dir__ = _lazy_names(__name__, __file__)
