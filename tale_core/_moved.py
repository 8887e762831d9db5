"""Where modules have moved: an import of an old place says in one sentence what to write instead."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_MOVED = {
    **dict.fromkeys(("arithmetic", "elasticity", "policy", "question"), "tale_core.method.{}"),
    **dict.fromkeys(("ledger", "logs", "telemetry", "tokens"), "tale_core.accounts.{}"),
    **dict.fromkeys(("client", "model_families", "model_strings", "providers"), "tale_core.models.{}"),
    **dict.fromkeys(("cli", "training"), "tale_lab.{}"),
    "candidates": "tale_lab.tuning.candidates",
    "curves": "tale_core.search.curves",
    "engines": "tale_lab.runs.engines",
    "evaluation": "from tale_lab (questions, results, runs, bench, curves)",
    "exemplars": "tale_core.prompts.exemplars",
    "harvest": "tale_lab.tuning.exemplar_mining",
    "knobs": "tale_core.models.reasoning_controls",
    "pace": "tale_core.loop_fairness",
    "probing": "tale_core.search.graded_call",
    "profile": "tale_core.method.calibration",
    "tuning": "tale_lab.tuning.race",
}


class _Signpost(MetaPathFinder):
    """Stands last: it is asked only for what nobody else has found."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        package, _, rest = fullname.partition(".")
        if package != "tale_core" or not rest:
            return None
        name = rest.partition(".")[0]
        if name not in _MOVED:
            return None
        raise ModuleNotFoundError(
            f"{fullname} has moved: import {_MOVED[name].format(name)} instead", name=fullname
        )


sys.meta_path.append(_Signpost())
