"""Failure table: each way in which a request can fail, and the answer to it.

The rows follow the promises of the OpenAI and OpenRouter APIs and the observed conduct of servers.
`classifier.classify` finds the row of a failed attempt; docs/reference/failures.md shows all rows
with the results of their tests.
"""

from enum import StrEnum

from msgspec import Struct


class Action(StrEnum):
    """Answer to a failure before the first content.

    NEXT asks the next target at once. AGAIN does so too, and once no other is left it may ask the
    same one again: after the time that the upstream names, or after a short one where it was not
    reached. TELL returns the error to the caller.
    """

    NEXT = "next"
    AGAIN = "again"
    TELL = "tell"


class HealthEffect(StrEnum):
    """Effect on the health of a target, which is a model at an upstream.

    COUNT counts a failure, SOFT one that alone never ejects a target, COOL ejects the target for
    the time that the upstream names, EJECT_KEY every model behind the same key, and REMOVE the
    target for ten minutes.
    """

    NONE = "none"
    COUNT = "count"
    SOFT = "soft"
    COOL = "cool"
    EJECT_KEY = "eject key"
    REMOVE = "remove"


class FailureRow(Struct, frozen=True, kw_only=True):
    """One row. `before` and `after` say what happens before and after the first content.

    `may_be_billed`: the upstream may charge for the attempt although it gave no answer.
    """

    number: int
    failure: str
    before: str
    after: str = "–"
    effect: str
    action: Action = Action.NEXT
    health: HealthEffect = HealthEffect.NONE
    may_be_billed: bool = False


_NEXT = "The next target is asked at once."
_BREAKS = "The stream ends with an error and without `[DONE]`, or another model continues it."
_COUNTED = "Counts against the target; nothing is charged."
_IN_DOUBT = "Counts against the target; the probable cost stays held until the bill is known."

FAILURE_TABLE: tuple[FailureRow, ...] = (
    FailureRow(
        number=1,
        failure="Name not found, connection refused, TLS failed, or reset before anything was sent",
        before="The next target is asked at once. With none left the same one is asked again after "
        "a short, random time.",
        effect=_COUNTED,
        action=Action.AGAIN,
        health=HealthEffect.COUNT,
    ),
    FailureRow(
        number=2,
        failure="Reset after the request was sent, no response",
        before=_NEXT,
        effect=_IN_DOUBT,
        health=HealthEffect.COUNT,
        may_be_billed=True,
    ),
    FailureRow(
        number=3,
        failure="No connection in time",
        before=_NEXT,
        effect=_COUNTED,
        health=HealthEffect.COUNT,
    ),
    FailureRow(
        number=4,
        failure="A response begins, or none does, and no content comes in time; comments and empty "
        "deltas are no content",
        before="The call is cancelled, and the next target is asked.",
        effect=_IN_DOUBT,
        health=HealthEffect.COUNT,
        may_be_billed=True,
    ),
    FailureRow(
        number=5,
        failure="A stream stalls",
        before=_NEXT,
        after=_BREAKS,
        effect=_IN_DOUBT,
        health=HealthEffect.COUNT,
        may_be_billed=True,
    ),
    FailureRow(
        number=6,
        failure="The connection ends in the middle of an answer, or a stream without a finish "
        "reason",
        before=_NEXT,
        after=_BREAKS,
        effect=_IN_DOUBT,
        health=HealthEffect.COUNT,
        may_be_billed=True,
    ),
    FailureRow(
        number=7,
        failure="An error inside a stream",
        before="As an answer with the status that the error names.",
        after=_BREAKS,
        effect="As an answer with that status; usage and text that came with it are charged.",
        health=HealthEffect.COUNT,
    ),
    FailureRow(
        number=8,
        failure="An error as the body of a 200",
        before="As an answer with the status that the error names.",
        effect="As an answer with that status; usage and text that came with it are charged.",
        health=HealthEffect.COUNT,
    ),
    FailureRow(
        number=9,
        failure="A 200 that is no answer: a page, no JSON, JSON of another kind, nothing, too long",
        before=_NEXT,
        effect=_IN_DOUBT,
        health=HealthEffect.COUNT,
        may_be_billed=True,
    ),
    FailureRow(
        number=10,
        failure="Malformed events in a stream",
        before="One is left out; with the second the next target is asked.",
        after="One is left out, and the end of the answer says so. With the second, or with one "
        "among tool calls, the stream ends with an error and without `[DONE]`.",
        effect=_IN_DOUBT,
    ),
    FailureRow(
        number=11,
        failure="429: the rate limit of the key or of the model",
        before="The next target is asked. With none left the same one is asked again after its "
        "`Retry-After`, if that is at most 10 s and before the request's deadline.",
        effect="The target is ejected for that time; nothing is charged.",
        action=Action.AGAIN,
        health=HealthEffect.COOL,
    ),
    FailureRow(
        number=12,
        failure="429: the model's capacity is exhausted",
        before="The next model is asked.",
        effect="The target is ejected for a while; nothing is charged.",
        health=HealthEffect.COOL,
    ),
    FailureRow(
        number=13,
        failure="402 for a moment: too much of the account's money is reserved for running calls",
        before="The next target is asked. With none left the same one is asked again after its "
        "`Retry-After`.",
        effect="The target is ejected for that time; nothing is charged.",
        action=Action.AGAIN,
        health=HealthEffect.COOL,
    ),
    FailureRow(
        number=14,
        failure="402, or an error that says so: the account or the key has no money left",
        before="The next target is asked.",
        effect="Every model behind that key is ejected, but for one live trial at a time.",
        health=HealthEffect.EJECT_KEY,
    ),
    FailureRow(
        number=15,
        failure="401, or another refusal of the key",
        before="The next target is asked.",
        effect="Every model behind that key is ejected, but for one live trial at a time.",
        health=HealthEffect.EJECT_KEY,
    ),
    FailureRow(
        number=16,
        failure="403 by moderation or a guardrail",
        before="The caller is told; no other model is tried behind the filter's back.",
        effect="None; nothing is charged.",
        action=Action.TELL,
    ),
    FailureRow(
        number=17,
        failure="403 or 400 for a region, 404 for privacy: constraints leave no provider",
        before="The next target is asked under the same constraints; with none left the caller is "
        "told.",
        effect="None; nothing is charged.",
    ),
    FailureRow(
        number=18,
        failure="400 or 413: the prompt is longer than the model's context",
        before="A model with a longer context is asked; nothing is cut silently.",
        effect="None; nothing is charged.",
    ),
    FailureRow(
        number=19,
        failure="400 or 422 otherwise, or 404 for a file or anything else that the request names",
        before="The caller is told with the upstream's status and words, unless they tell of a "
        "fault of the provider.",
        effect="None; nothing is charged.",
        action=Action.TELL,
    ),
    FailureRow(
        number=20,
        failure="404 or 410: the model is gone",
        before=_NEXT,
        effect="The target is ejected for ten minutes, and the log says so.",
        health=HealthEffect.REMOVE,
    ),
    FailureRow(
        number=21,
        failure="408, 409, 425, 500, 502, 503, 504, 52x or 529, or a 404 without a reason",
        before=_NEXT,
        effect=_COUNTED,
        health=HealthEffect.COUNT,
    ),
    FailureRow(
        number=22,
        failure="An empty answer: no text and no tool call",
        before="The next target is asked; an empty answer of the last one is delivered.",
        effect="Counts softly against the target; charged as reported.",
        health=HealthEffect.SOFT,
        may_be_billed=True,
    ),
    FailureRow(
        number=23,
        failure="A refusal in the text of the answer",
        before="Delivered. A checked cascade asks the next model.",
        after="Delivered.",
        effect="A signal of quality for learning.",
    ),
    FailureRow(
        number=24,
        failure="The answer ends at its limit of tokens",
        before="Delivered with `finish_reason: length`.",
        after="Delivered with `finish_reason: length`.",
        effect="None; charged as reported.",
    ),
    FailureRow(
        number=25,
        failure="JSON, a schema or the arguments of a tool are not valid",
        before="Delivered. A checked cascade asks the next model.",
        after="Delivered.",
        effect="A signal of quality for learning.",
    ),
    FailureRow(
        number=26,
        failure="The same words again and again",
        before="With `sophia.cut_repetition` the answer is cut, and the next target is asked.",
        after="With `sophia.cut_repetition` the stream ends with an error and without `[DONE]`.",
        effect="Counts softly against the target; charged as reported.",
        health=HealthEffect.SOFT,
        may_be_billed=True,
    ),
    FailureRow(
        number=27,
        failure="No usage at the end",
        before="Delivered.",
        after="Delivered.",
        effect="Charged by the length of the text; the worst case stays reserved until its bill.",
    ),
    FailureRow(
        number=28,
        failure="The reported cost is above the hold",
        before="Delivered.",
        after="Delivered.",
        effect="Charged in full, and logged; further requests find the budget that much smaller.",
    ),
    FailureRow(
        number=29,
        failure="The caller hangs up",
        before="The call is cancelled.",
        after="The call is cancelled, or read to its end with `upstreams[].on_leave: drain`.",
        effect="Charged as the upstream bills.",
    ),
    FailureRow(
        number=30,
        failure="The caller reads slowly, or not at all",
        before="–",
        after="No more is read from the upstream than the caller takes; after 60 s without a byte "
        "taken the connection is cut.",
        effect="None; charged as the upstream bills.",
    ),
    FailureRow(
        number=31,
        failure="Sophia is overloaded",
        before="503 with `Retry-After`, before anything is reserved; no key gets more than its "
        "share.",
        after="The answer goes on.",
        effect="None; nothing is charged.",
    ),
    FailureRow(
        number=32,
        failure="The ledger cannot be written",
        before="503 with `Retry-After`; nothing is sent that could not be billed.",
        after="The answer goes on; its cost is written later.",
        effect="None.",
    ),
    FailureRow(
        number=33,
        failure="Sophia is asked to stop (SIGTERM)",
        before="Not ready at once; then 503 for new requests.",
        after="Answers finish until the drain time ends; then the stream ends with an error.",
        effect="Everything is settled.",
    ),
    FailureRow(
        number=34,
        failure="Sophia is killed",
        before="–",
        after="The caller sees a broken connection.",
        effect="Holds of sent attempts stay, and are settled by their bill after the restart.",
    ),
    FailureRow(
        number=35,
        failure="The clock jumps",
        before="Nothing: deadlines use the monotonic clock.",
        after="Nothing.",
        effect="Each cost belongs to the day in which it was reserved.",
    ),
)
