"""Money is an integer number of nano-dollars; decimals appear only where a price is parsed."""

from decimal import ROUND_CEILING, Decimal, InvalidOperation

NANO_PER_USD = 1_000_000_000
TOKENS_PER_PRICE_UNIT = 1_000_000
MAX_NANO = 2**63 - 1


def nano_from_usd(amount: str | float | Decimal) -> int:
    """Return `amount` US dollars in nano-dollars, rounded up once.

    Raises:
        ValueError: `amount` is not a finite number that fits into 63 bits.
    """
    try:
        exact = Decimal(str(amount)) * NANO_PER_USD
        nano = int(exact.to_integral_value(ROUND_CEILING))
    except (InvalidOperation, OverflowError, ValueError):
        raise ValueError(f"{amount!r} is not an amount in US dollars") from None
    if abs(nano) > MAX_NANO:
        raise ValueError(f"{amount!r} US dollars is more than Sophia can count")
    return nano


def usd(nano: int) -> float:
    """Return `nano` nano-dollars in US dollars, for people and JSON; never calculate with it."""
    return nano / NANO_PER_USD


def format_usd(nano: int) -> str:
    """Return `nano` as a short dollar text, such as `$0.000123`; small ones keep their digits."""
    dollars = Decimal(nano) / NANO_PER_USD
    if abs(dollars) >= 1:
        return f"${dollars:,.2f}"
    text = f"{dollars:.9f}".rstrip("0")
    return "$" + (text + "00" if text.endswith(".") else text)


def about_usd(nano: float) -> str:
    """Return an expectation in nano-dollars as a dollar text of three digits."""
    return format_usd(round(float(f"{nano:.3g}")))


def token_cost(tokens: int, nano_per_mtok: int) -> int:
    """Return the exact cost of `tokens` in nano-dollars x 1,000,000; sum, then `settle_cost`."""
    return tokens * nano_per_mtok


def settle_cost(scaled: int) -> int:
    """Round a sum of `token_cost` results up to whole nano-dollars, once."""
    return -(-scaled // TOKENS_PER_PRICE_UNIT)
