"""Who can answer a request and at what price, and who cannot and why."""

from sophia.routing.constraints import able, needs_of
from sophia.routing.nouns import Excluded, Features
from sophia.routing.optimizer import Offer, bounds_of, purse_of, quote, too_dear
from sophia.routing.pool import Seat
from sophia.routing.request import RouteRequest


class Field:
    """The able candidates of one request with their costs, and who was left out why."""

    def __init__(self, request: RouteRequest, features: Features) -> None:
        hints, limits = request.hints, request.limits
        self.request = request
        self.features = features
        self.purse = purse_of(limits.per_request_nano, limits.budget_left_nano, hints.max_cost_nano)
        self._needs = needs_of(
            request.prompt,
            hints,
            request.today,
            priced=self.purse.nano is not None,
            allowed=limits.allowed,
            unhealthy=request.unhealthy,
        )
        self._bounds = bounds_of(request.prompt, features, limits.price_headroom)
        self.offers: dict[str, Offer] = {}
        self.excluded: list[Excluded] = []
        self._seen: set[str] = set()
        self.only = self._only()
        pool = request.pool
        for seat in pool.seats if self.only is None else self.only:
            self._admit(seat)

    def _only(self) -> tuple[Seat, ...] | None:
        """Return the seats that the caller restricts the choice to, or None for the whole pool."""
        if not self.request.hints.models:
            return None
        found = [(name, self.seat(name)) for name in self.request.hints.models]
        for name, seat in found:
            if seat is None:
                self.excluded.append(Excluded(name, "No model of that name is in the catalogue.", "model_not_found"))
        return tuple([seat for _, seat in found if seat is not None])

    def seat(self, name: str) -> Seat | None:
        """Return the seat of a model by name, from the pool or from the catalogue."""
        pool = self.request.pool
        seat = pool.by_id.get(name)
        if seat is None:
            model = self.request.find(name)
            if model is not None:
                seat = pool.by_id.get(model.id) or Seat.of(model)
        return seat

    def _admit(self, seat: Seat) -> Offer | None:
        self._seen.add(seat.id)
        cause = able(seat.model, self.features, self._needs)
        if cause is not None:
            self.excluded.append(cause)
            return None
        offer = quote(seat, self.features.task_type, self._bounds, self.purse)
        if offer.held is None:
            self.excluded.append(Excluded(seat.id, too_dear(offer, self.purse), "too_dear"))
            return None
        self.offers[seat.id] = offer
        return offer

    def offer(self, name: str) -> Offer | None:
        """Return the offer of a model by name, if it is able and may be chosen."""
        seat = self.seat(name)
        if seat is None:
            return None
        if seat.id in self._seen or self.only is not None:
            return self.offers.get(seat.id)
        return self._admit(seat)

    def offer_of_role(self, role: str) -> Offer | None:
        """Return the offer of the model that has `role` in the pool, if it is able."""
        seat = self.request.pool.by_role.get(role)
        return None if seat is None else self.offers.get(seat.id)

    def ranked(self) -> list[Offer]:
        """Return all offers, best expected quality first."""
        offers = self.offers
        order = [offers[seat.id] for seat in self.request.pool.ranking[self.features.task_type] if seat.id in offers]
        if len(order) < len(offers):
            known = self.request.pool.by_id
            order.extend(offer for id, offer in offers.items() if id not in known)
        return order
