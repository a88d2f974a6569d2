"""The tables, as SQLAlchemy Core metadata; migrations are compared with it in the tests.

`intents` and `outcomes` are append-only and keyed by attempt id, which grows with time.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("name", String, nullable=False),
    Column("scope", String, nullable=False),
    Column("daily_budget_nano", BigInteger),
    Column("per_request_nano", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("explores", Boolean, nullable=False, server_default="1"),
)

intents = Table(
    "intents",
    metadata,
    Column("attempt_id", Integer, primary_key=True, autoincrement=False),
    Column("key_id", String, nullable=False),
    Column("window", String, nullable=False),
    Column("model", String, nullable=False),
    Column("upstream", String, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("plan", LargeBinary),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("attempt_id", Integer, primary_key=True, autoincrement=False),
    Column("key_id", String, nullable=False),
    Column("window", String, nullable=False),
    Column("model", String, nullable=False),
    Column("state", String, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    Column("cost_source", String, nullable=False),
    Column("estimate_nano", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("finish_reason", String),
    Column("failure", String),
    Column("generation_id", String),
    Column("provider", String),
    Column("first_content_ms", Float),
    Column("total_ms", Float, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

feedback = Table(
    "feedback",
    metadata,
    Column("idempotency_key", String, primary_key=True),
    Column("decision_id", BigInteger, nullable=False),
    Column("key_id", String, nullable=False),
    Column("score", Float),
    Column("label", String),
    Column("comment_chars", BigInteger, nullable=False),
    Column("preferred_model", String),
    Column("channel", String, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Index("feedback_by_decision", "decision_id"),
)

lessons = Table(
    "lessons",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("decision_id", BigInteger, nullable=False),
    Column("key_id", String, nullable=False),
    Column("arm", String, nullable=False),
    Column("quality", Float, nullable=False),
    Column("weight", Float, nullable=False),
    Column("policy", String, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("first", Boolean, nullable=False),
    Column("channel", String, nullable=False),
)
