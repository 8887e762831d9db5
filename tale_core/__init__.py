"""Token-budget-aware reasoning (TALE, arXiv 2412.18547): the method itself, independent of any framework.

Flows plan model calls; whoever runs a flow makes them. `tale_langchain` and `tale_llamaindex` are two such
runners; `run` and `arun` are all it takes to write another.
"""

import sys as _sys

from tale_core._lazy import MovedModules as _MovedModules
from tale_core._lazy import lazy_names as _lazy_names

__version__ = "0.1.0"

_sys.meta_path.append(_MovedModules())

# The public names, and where they are defined, are in __init__.pyi.
__getattr__, __dir__ = _lazy_names(__name__, __file__)
