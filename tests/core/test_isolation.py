"""Unit tests reach no network; tests with the small model reach this machine alone."""

from __future__ import annotations

import http.client
import socket

import pytest
from pytest_socket import SocketBlockedError, SocketConnectBlockedError

pytestmark = pytest.mark.filterwarnings("ignore:A test tried to use socket")


def test_a_unit_test_cannot_open_a_socket() -> None:
    with pytest.raises(SocketBlockedError):
        socket.socket()


async def test_an_asynchronous_unit_test_cannot_open_a_socket_either() -> None:
    with pytest.raises(SocketBlockedError):
        socket.socket()


def test_a_test_on_loopback_cannot_leave_this_machine(loopback: str) -> None:
    with socket.socket() as client, pytest.raises(SocketConnectBlockedError):
        client.connect(("192.0.2.1", 80))
    assert loopback == "127.0.0.1"


@pytest.mark.model
def test_the_small_model_answers_on_this_machine(small_model) -> None:  # type: ignore[no-untyped-def]
    connection = http.client.HTTPConnection("127.0.0.1", small_model.port, timeout=60)
    connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {small_model.api_key}"})
    assert small_model.model in connection.getresponse().read().decode()
    connection.close()
