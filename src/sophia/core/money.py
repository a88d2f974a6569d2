"""Money as an integer number of nano-dollars; decimals appear only where a price is parsed."""

import math
from decimal import Decimal, InvalidOperation

NANO_PER_USD = 1_000_000_000
TOKENS_PER_PRICE_UNIT = 1_000_000
MAX_NANO = 2**63 - 1


def nano_from_usd(amount: str | float | Decimal) -> int:
    """Return `amount` US dollars in nano-dollars, rounded up once.

    Raises ValueError when it is not a finite number that fits into 63 bits.
    """
    try:
        nano = math.ceil(Decimal(str(amount)) * NANO_PER_USD)
    except (InvalidOperation, OverflowError, ValueError):
        raise ValueError(f"{amount!r} is not an amount in US dollars") from None
    if abs(nano) > MAX_NANO:
        raise ValueError(f"{amount!r} US dollars is out of range")
    return nano


def nano_to_usd(nano: int) -> float:
    """Return `nano` nano-dollars in US dollars, for display and JSON only."""
    return nano / NANO_PER_USD


def format_usd(nano: int) -> str:
    """Return `nano` as a short dollar text such as `$0.000123`."""
    dollars = Decimal(nano) / NANO_PER_USD
    if abs(dollars) >= 1:
        return f"${dollars:,.2f}"
    text = f"{dollars:.9f}".rstrip("0")
    return "$" + (text + "00" if text.endswith(".") else text)


def format_approximate_usd(nano: float) -> str:
    """Return an estimate in nano-dollars as a dollar text with three significant digits."""
    return format_usd(round(float(f"{nano:.3g}")))
