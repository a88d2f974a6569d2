"""Limits of size, and rules of names and docstrings; sizes include every `__init__`."""

import re

from shape import (
    MODULES,
    docstrings,
    folder_sizes,
    function_sizes,
    module_sizes,
    percentile,
    place,
    positional_calls,
    positional_types,
    public_classes,
    repeated,
)


def over(sizes: dict[str, int], limit: int) -> dict[str, int]:
    """Return what is larger than its limit."""
    return {name: size for name, size in sizes.items() if size > limit}


def test_modules_stay_short() -> None:
    """Past 500 lines a module does too much; 95 of 100 stay within 350."""
    sizes = module_sizes()

    assert over(sizes, 500) == {}
    assert percentile(sizes.values(), 95) <= 350


def test_functions_stay_short() -> None:
    """None is over 60 lines, and 95 of 100 are within 35."""
    sizes = function_sizes()

    assert over(sizes, 60) == {}
    assert percentile(sizes.values(), 95) <= 35


def test_folders_stay_small() -> None:
    """Past twelve modules and `__init__` a folder wants sub-packages."""
    assert over(folder_sizes(), 13) == {}


def test_a_public_class_name_has_one_meaning() -> None:
    """One name, one meaning."""
    assert repeated(public_classes()) == {}


def test_long_constructor_calls_use_keywords() -> None:
    """Two swapped integers among seven positional arguments pass every type check."""
    assert list(positional_calls()) == []


def test_large_types_take_keywords() -> None:
    """Structs and dataclasses of more than four fields are `kw_only`, or written as arrays."""
    assert list(positional_types()) == []


def test_every_module_has_a_docstring() -> None:
    """A module fits one sentence, its first docstring line."""
    documented = {at for at, _ in docstrings()}

    assert [str(path) for path in MODULES if place(path) not in documented] == []


def test_docstrings_begin_with_a_noun_or_an_imperative() -> None:
    """Never with What, Who, Where, How or When."""
    question = re.compile(r"(what|who|whom|whose|where|how|when)\b", re.IGNORECASE)

    assert [
        f"{at} {text.splitlines()[0]}" for at, text in docstrings() if question.match(text)
    ] == []
