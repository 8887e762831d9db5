"""Token-budget-aware reasoning (TALE, arXiv 2412.18547): the method itself, free of any framework.

Flows plan model calls; whoever runs a flow makes them. `tale_langchain` and `tale_llamaindex` are two such
runners; `run` and `arun` are all it takes to write another.
"""

from tale_core import _moved  # noqa: F401  # answers imports of former places
from tale_core._lazy import lazy_names as _lazy_names

__version__ = "0.1.0"

# The public names, and where they are defined, stand in __init__.pyi.
__getattr__, __dir__ = _lazy_names(__name__, __file__)
