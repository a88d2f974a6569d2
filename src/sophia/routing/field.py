"""Who can answer a request and at what price, and who cannot and why."""

from collections.abc import Iterable

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
        self.excluded: dict[str, Excluded] = {}
        self.only = self._only()
        self._admit(request.pool.seats if self.only is None else self.only)

    def _only(self) -> tuple[Seat, ...] | None:
        """Return the seats that the caller restricts the choice to, or None for the whole pool."""
        if not self.request.hints.models:
            return None
        found = [(name, self.seat(name)) for name in self.request.hints.models]
        for name, seat in found:
            if seat is None:
                cause = "No model of that name is in the catalogue."
                self.excluded[name] = Excluded(name, cause, "model_not_found")
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

    def _admit(self, seats: Iterable[Seat]) -> None:
        features, needs, bounds, purse = self.features, self._needs, self._bounds, self.purse
        for seat in seats:
            cause = able(seat.model, features, needs)
            if cause is None:
                offer = quote(seat, features.task_type, bounds, purse)
                if offer.held is not None:
                    self.offers[seat.id] = offer
                    continue
                cause = Excluded(seat.id, too_dear(offer, purse), "too_dear")
            self.excluded[seat.id] = cause

    def offer(self, name: str) -> Offer | None:
        """Return the offer of a model by name, if it is able and may be chosen."""
        seat = self.seat(name)
        if seat is None:
            return None
        offer = self.offers.get(seat.id)
        if offer is not None or self.only is not None or seat.id in self.request.pool.by_id:
            return offer
        self._admit((seat,))
        return self.offers.get(seat.id)

    def offer_of_role(self, role: str) -> Offer | None:
        """Return the offer of the model that has `role` in the pool, if it is able."""
        seat = self.request.pool.by_role.get(role)
        return None if seat is None else self.offers.get(seat.id)

    def ranked(self) -> list[Offer]:
        """Return all offers, best expected quality first."""
        offers = self.offers
        order = [
            offers[seat.id]
            for seat in self.request.pool.ranking[self.features.task_type]
            if seat.id in offers
        ]
        if len(order) < len(offers):
            known = self.request.pool.by_id
            order.extend(offer for id, offer in offers.items() if id not in known)
        return order
