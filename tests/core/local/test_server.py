"""The embedded server starts quietly, ends with its owner, and says what is wrong when it does not start."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tale_core.errors import CorruptWeightsError, InvalidValueError, MissingExtraError, ServerError
from tale_core.local import SMALL_MODEL, LocalServer, ServerSettings, find_weights, serve
from tale_core.local import _process as process_module
from tale_core.local.weights import Weights

if TYPE_CHECKING:
    from pathlib import Path

    from tale_core.local import EmbeddedModel


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF but no model")
    return Weights(model="mine", path=path, origin="the test")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script that runs in place of the server."""
    path = tmp_path / "script.py"
    monkeypatch.setattr(process_module, "__file__", str(path))
    return path


def test_a_server_that_dies_while_it_starts_says_why_and_what_to_do(weights: Weights, script: Path) -> None:
    script.write_text("raise SystemExit('out of memory')")
    with pytest.raises(ServerError, match=r"mine\.gguf' \(exit status 1: out of memory\); check .*tale doctor"):
        LocalServer(weights)


def test_a_server_that_does_not_get_ready_is_given_up(weights: Weights, script: Path) -> None:
    script.write_text("import time; time.sleep(60)")
    with pytest.raises(ServerError, match=r"not ready after 0\.2 seconds; give it more time"):
        LocalServer(weights, ServerSettings(timeout=0.2))


def test_a_server_that_reports_an_address_where_nobody_listens_is_refused(
    weights: Weights, script: Path, loopback: str
) -> None:
    script.write_text(
        'import sys; print(\'{"listening": "http://127.0.0.1:1"}\', flush=True); sys.stdin.read()'
    )
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:1 does not answer \(ConnectionRefusedError\)"):
        LocalServer(weights)


def test_damaged_weights_of_the_catalogue_are_the_reason_given(
    tiny: EmbeddedModel, script: Path, tmp_path: Path
) -> None:
    script.write_text("raise SystemExit(1)")
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF damaged")
    with pytest.raises(CorruptWeightsError, match="sha256"):
        LocalServer(Weights(model="tiny", path=path, origin="the test"))


def test_without_llama_cpp_the_command_that_brings_it_is_named(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'xllamacpp' .* pip install 'tale-reasoning\[local\]'"):
        LocalServer(weights)


def test_the_key_is_told_to_the_server_alone_and_shown_nowhere(
    weights: Weights, script: Path, tmp_path: Path
) -> None:
    script.write_text(
        "import json, pathlib, sys\n"
        f"pathlib.Path({str(tmp_path)!r}, 'told').write_text(json.dumps([sys.argv, sys.stdin.readline()]))\n"
        "raise SystemExit('no')"
    )
    with pytest.raises(ServerError) as failed:
        LocalServer(weights)
    arguments, line = json.loads((tmp_path / "told").read_text())
    key = json.loads(line)["key"]
    assert len(key) >= 32
    assert key not in str(arguments)
    assert key not in str(failed.value)


@pytest.mark.model
def test_requests_without_the_key_get_nothing_but_its_health() -> None:
    with LocalServer(find_weights(SMALL_MODEL)) as one, LocalServer(find_weights(SMALL_MODEL)) as other:
        assert one.api_key != other.api_key
        assert one.api_key not in repr(one) + str(one)
        assert status(one, "/health") == 200
        for path in (
            "/v1/models",
            "/models",
            "/props",
            "/slots",
            "/metrics",
            "/v1/chat/completions",
            "/tokenize",
        ):
            assert status(one, path) == 401, path
            assert status(one, path, key=other.api_key) == 401, path
        assert status(one, "/v1/models", key=one.api_key) == 200
        assert {status(one, path, key=one.api_key) for path in ("/slots", "/metrics")} == {501}


def status(server: LocalServer, path: str, *, key: str | None = None) -> int:
    """Return the status of a request as a web page's, with DNS rebinding, would be sent."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Host": "evil.example", **({"Authorization": f"Bearer {key}"} if key else {})}
    connection.request("GET", path, headers=headers)
    with closing(connection):
        return connection.getresponse().status


@pytest.mark.parametrize("setting", [{"parallel": 0}, {"context": 0}, {"port": -1}, {"timeout": 0}])
def test_settings_that_cannot_be_meant_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(InvalidValueError, match=f"ServerSettings.{next(iter(setting))}"):
        ServerSettings(**setting)


@pytest.mark.model
def test_a_file_that_llama_cpp_cannot_read_is_an_error_and_no_crash(weights: Weights) -> None:
    with pytest.raises(ServerError, match="did not start"):
        LocalServer(weights)


@pytest.mark.model
def test_one_process_has_one_server_of_a_model(small_model: LocalServer) -> None:
    assert serve(SMALL_MODEL) is small_model


@pytest.mark.model
def test_a_server_can_be_closed_twice_and_is_gone_then() -> None:
    with LocalServer(find_weights(SMALL_MODEL)) as server:
        assert server.alive
        assert server.base_url == f"http://127.0.0.1:{server.port}/v1"
        assert repr(server) == f"<LocalServer {SMALL_MODEL} at {server.base_url}>"
    server.close()
    assert not server.alive


@pytest.mark.model
def test_a_server_that_died_is_started_anew() -> None:
    settings = ServerSettings(context=512)
    dead = serve(SMALL_MODEL, settings=settings)
    dead._process.kill()
    dead._process.wait()
    fresh = serve(SMALL_MODEL, settings=settings)
    assert fresh is not dead
    assert fresh.alive
    fresh.close()


@pytest.mark.model
def test_threads_that_ask_at_once_share_one_server() -> None:
    settings = ServerSettings(context=600)
    servers: list[LocalServer] = []
    threads = [
        threading.Thread(target=lambda: servers.append(serve(SMALL_MODEL, settings=settings))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(servers) == 6
    assert len(set(map(id, servers))) == 1
    servers[0].close()


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


START = f"""
from tale_core.local import serve
server = serve({SMALL_MODEL!r})
"""


@pytest.mark.model
def test_a_program_that_serves_prints_nothing_and_exits_cleanly() -> None:
    done = run_python(START)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.model
def test_the_server_ends_with_its_owner_even_when_that_is_killed() -> None:
    done = run_python(
        START + "import os, signal; print(server.port, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert done.returncode == -signal.SIGKILL
    wait_until_nobody_listens(int(done.stdout))


def wait_until_nobody_listens(port: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=60).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.005)
    pytest.fail(f"something still listens on port {port}")


@pytest.mark.model
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_forked_child_uses_the_server_and_leaves_it_running() -> None:
    done = run_python(
        START
        + """
import os, sys
child = os.fork()
if child == 0:
    assert serve(server.model) is server
    server.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert server.alive
"""
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.model
def test_interrupting_the_owner_ends_it_with_the_interrupt_alone() -> None:
    # Who starts the tests in the background has the interrupt ignored, and children inherit that.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    done = run_python(heed + START + "import os; os.kill(os.getpid(), signal.SIGINT)")
    assert done.returncode == -signal.SIGINT
    assert done.stderr.strip().endswith("KeyboardInterrupt")
