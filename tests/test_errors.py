from ssd_lightning.errors import listed, with_causes


def test_causes_come_in_order_and_each_once() -> None:
    outer, inner = RuntimeError("outer"), ValueError("inner")
    outer.__cause__, inner.__context__ = inner, KeyError("context")
    assert list(with_causes(outer)) == [outer, inner, inner.__context__]
    inner.__cause__ = outer  # a circle
    assert list(with_causes(outer)) == [outer, inner]


def test_a_list_says_how_many_it_leaves_out() -> None:
    assert listed([]) == ""
    assert listed("ab", 2) == "a, b"
    assert listed("abcd", 2) == "a, b and 2 more"
    assert listed("abc", 2, separator="\n  ") == "a\n  b\n  and 1 more"
