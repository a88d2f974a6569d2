"""A key's money lasts through its day, when it asks at a steady rate."""

from sophia.serving.learned.budget_pacing import DAY_SECONDS, BudgetPacing


def day(paces: BudgetPacing, *, budget: float, cost: float, requests: int, key: str = "k") -> float:
    """Ask evenly through a day; every answer costs `cost`, less where money is dear; return spent."""
    spent = 0.0
    for number in range(requests):
        now = number * DAY_SECONDS / requests
        price = paces.price(key)
        paces.record_request(key, budget - spent, now)
        paid = cost / (1.0 + 10.0 * price)
        spent += paid
        paces.record_cost(key, paid, now)
    return spent


def test_a_budget_that_would_run_out_is_stretched_over_the_day() -> None:
    assert day(BudgetPacing(), budget=1000.0, cost=1.0, requests=4000) <= 1030.0


def test_a_budget_that_suffices_changes_nothing() -> None:
    assert day(BudgetPacing(), budget=10_000.0, cost=1.0, requests=2000) == 2000.0


def test_one_keys_pace_is_not_anothers() -> None:
    paces = BudgetPacing()
    day(paces, budget=100.0, cost=1.0, requests=2000, key="poor")
    paces.record_request("rich", 1e9, 0.0)
    assert paces.price("rich") == 0.0


def test_nobody_is_judged_by_a_handful_of_requests() -> None:
    paces = BudgetPacing()
    prices = []
    for number in range(50):
        prices.append(paces.price("k"))
        paces.record_request("k", 10.0, number * 0.01)
        paces.record_cost("k", 5.0, number * 0.01)
    assert set(prices) == {0.0}
