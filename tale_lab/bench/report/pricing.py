"""What a call costs: list prices, where they are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tale_core.errors import MissingExtraError

if TYPE_CHECKING:
    from tale_core.types import Usage

CURRENCY = "USD"


class Price(Protocol):
    """The price of one call."""

    def __call__(self, usage: Usage) -> float:
        """Return what a call costs, in US dollars.

        Args:
            usage: Its tokens.
        """


def list_price(model: str, address: str) -> Price | None:
    """Return the provider's list price of a model, or None where none is known.

    Prices come with the package ``genai-prices``; nothing is downloaded. They are for calls one at a time,
    without discounts for cached prompts or batches. A server of one's own has no list price.

    Args:
        model: The model's name.
        address: The address of its API, which says whose price it is.

    Raises:
        MissingExtraError: genai-prices is not installed.
    """
    if not address:
        return None
    try:
        from genai_prices import Usage as Tokens  # noqa: PLC0415  # slow to import
        from genai_prices import calc_price  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError("genai_prices", "eval") from exc

    def price(usage: Usage) -> float:
        tokens = Tokens(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
        return float(calc_price(tokens, model, provider_api_url=address).total_price)

    try:
        calc_price(Tokens(input_tokens=1, output_tokens=1), model, provider_api_url=address)
    except LookupError:
        return None
    return price
