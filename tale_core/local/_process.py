"""The server's own process; run as a script by `tale_core.local.server`.

A process of its own keeps a crash of native code, its threads and its output away from the caller's, and lets
the caller fork. It ends when its standard input does, so that no server outlives its owner.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

READY = "listening"
# Every open connection holds a thread: with the few that llama.cpp takes, a dozen streams shut all others out.
_HTTP_THREADS = 256


def main() -> None:
    """Serve with the settings that stand as JSON in the first line of standard input, until that ends."""
    # A script's folder comes first on the path, and this one has modules with everyday names.
    del sys.path[0]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's to handle
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # native code may print: not into the report
    # Not as an argument: every user of this machine can read those, and the settings hold the key.
    server = start(json.loads(sys.stdin.readline()))
    report.write(json.dumps({READY: server.listening_address}) + "\n")
    report.flush()
    while os.read(0, 1024):
        pass
    # Straight out: tearing native threads down in order takes time and gains nothing.
    os._exit(0)


def start(settings: dict[str, Any]) -> Any:
    """Return a running server."""
    import xllamacpp  # noqa: PLC0415  # after the output is redirected

    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["model"]}
    params.port = settings["port"]
    params.n_parallel = settings["parallel"]
    params.n_ctx = settings["parallel"] * settings["context"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.sampling.temp = settings["temperature"]
    params.n_predict = settings["answer_limit"]
    params.n_threads_http = _HTTP_THREADS
    params.api_keys = [settings["key"]]
    params.use_jinja = True
    params.verbosity = -1
    params.offline = True
    # Only what the API needs: no web page, no view of other people's prompts, no access from web pages.
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_props = False
    params.endpoint_metrics = False
    params.cors_origins = ""
    params.cache_ram_mib = settings["prompt_cache"]
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
