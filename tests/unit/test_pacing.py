"""A key's money lasts through its day, when it asks at a steady rate."""

from sophia.serving.pacing import DAY, Paces


def day(paces: Paces, *, budget: float, cost: float, requests: int, key: str = "k") -> float:
    """Ask evenly through a day; every answer costs `cost`, less where money is dear; return spent."""
    spent = 0.0
    for number in range(requests):
        now = number * DAY / requests
        price = paces.asked(key, budget - spent, now)
        paid = cost / (1.0 + 10.0 * price)
        spent += paid
        paces.paid(key, paid, now)
    return spent


def test_a_budget_that_would_run_out_is_stretched_over_the_day() -> None:
    assert day(Paces(), budget=1000.0, cost=1.0, requests=4000) <= 1030.0


def test_a_budget_that_suffices_changes_nothing() -> None:
    assert day(Paces(), budget=10_000.0, cost=1.0, requests=2000) == 2000.0


def test_one_keys_pace_is_not_anothers() -> None:
    paces = Paces()
    day(paces, budget=100.0, cost=1.0, requests=2000, key="poor")
    assert paces.asked("rich", 1e9, 0.0) == 0.0


def test_nobody_is_judged_by_a_handful_of_requests() -> None:
    paces = Paces()
    prices = []
    for number in range(50):
        prices.append(paces.asked("k", 10.0, number * 0.01))
        paces.paid("k", 5.0, number * 0.01)
    assert set(prices) == {0.0}
