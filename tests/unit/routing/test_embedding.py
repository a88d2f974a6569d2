"""The static embedding: our WordPiece cuts as the reference does, and the vector is the sum."""

import json
from importlib.resources import files
from io import BytesIO

import numpy as np
import pytest
import tokenizers

from sophia.routing.bandit.context.embedding import (
    HEAD_CHARS,
    MAX_CACHED_WORDS,
    TAIL_CHARS,
    EmbeddingModel,
    load_embedding_model,
    truncate_middle,
)
from sophia.routing.bandit.policy import Vector

BLOB = files("sophia.routing").joinpath("data/embedding.npz").read_bytes()
VOCABULARY_SIZE = 30_522
MAX_CHARS = HEAD_CHARS + TAIL_CHARS + 1
CORPUS = (
    "",
    " \t\r\n ",
    "Hello, World! How's it going?",
    "def f(x):\n    return x**2 + 3.14  # naïve",
    "Unaffable antidisestablishmentarianism xqzzt",
    "東京は日本の首都です。漢字とカナ、한국어 텍스트",
    "Café ΑΣ ΣΟΦΟΣ İstanbul Straße ﬁne ½ №5",
    "😀👍🏽 flags 🇩🇪 zero\u200bwidth soft\u00adhyphen",
    "Привет, мир! שלום مرحبا हिन्दी ٣",
    "a\x00b\x07c\x0bd\x7fe \ufffd tab\there\u00a0nbsp\u3000wide",
    "«quotes» — dashes… and “curly” ¿qué? 1,000.5€ $x^2_{i}$",
    "x" * 100 + " " + "y" * 101 + " " + "é" * 101,
    "##ing [SEP] snake_case camelCase http://a.b/c?d=e&f",
)


@pytest.fixture(scope="module")
def embedding() -> EmbeddingModel:
    return load_embedding_model(BLOB)


@pytest.fixture(scope="module")
def reference() -> tokenizers.Tokenizer:
    with np.load(BytesIO(BLOB)) as table:
        words = table["words"].tobytes().decode().split("\n")
    vocabulary = {word: number for number, word in enumerate(words)}
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }
    return tokenizers.Tokenizer.from_str(json.dumps(whole))


@pytest.mark.parametrize("text", CORPUS)
def test_a_text_is_cut_as_the_reference_cuts_it(
    embedding: EmbeddingModel, reference: tokenizers.Tokenizer, text: str
) -> None:
    expected = reference.encode(text, add_special_tokens=False).ids
    assert embedding.tokenize(text).tolist() == expected
    # The second time the pieces come from memory.
    assert embedding.tokenize(text).tolist() == expected


def test_every_old_character_is_folded_as_the_reference_folds_it(
    embedding: EmbeddingModel, reference: tokenizers.Tokenizer
) -> None:
    for first in range(0x20, 0x600, 16):
        text = " ".join(f"a{chr(code)}b" for code in range(first, first + 16))
        assert (
            embedding.tokenize(text).tolist()
            == reference.encode(text, add_special_tokens=False).ids
        )


def test_the_memory_of_words_is_bounded(embedding: EmbeddingModel) -> None:
    first = embedding.tokenize("qqzx0").tolist()
    for number in range(MAX_CACHED_WORDS + 10):
        embedding.tokenize(f"qqzx{number}")
    assert len(embedding._pieces) <= VOCABULARY_SIZE + MAX_CACHED_WORDS
    assert embedding.tokenize("qqzx0").tolist() == first


def test_a_vector_is_the_normalised_weighted_sum_of_its_tokens() -> None:
    codes = np.array([[9, 9], [3, 0], [0, 4]], np.int8)
    small = EmbeddingModel(["[UNK]", "a", "b"], codes, np.array([1.0, 1.0, 0.5], np.float32))
    assert small.embed(small.tokenize("a b")) == pytest.approx([3 / 13**0.5, 2 / 13**0.5])
    assert small.embed([]).tolist() == [0.0, 0.0]


def test_likeness_means_something(embedding: EmbeddingModel) -> None:
    def vector(text: str) -> Vector:
        return embedding.embed(embedding.tokenize(text))

    cat = vector("The cat sat on the mat")
    assert cat @ vector("A kitten lies on a rug") > cat @ vector(
        "Compute the integral of x squared"
    )


def test_only_the_ends_of_a_long_text_are_read() -> None:
    text = "a" * HEAD_CHARS + "m" * 5000 + "z" * 400
    assert len(truncate_middle(text)) == MAX_CHARS
    assert "m" not in truncate_middle(text)
    assert truncate_middle("short") == "short"


def test_half_as_much_is_read_of_a_wide_script() -> None:
    """Its words fall into more pieces; a few accents make no wide script."""
    assert len(truncate_middle("请比较两座城市" * 1000)) == MAX_CHARS // 2 + 1
    assert len(truncate_middle("naïve café " * 1000)) == MAX_CHARS
