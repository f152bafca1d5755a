from ssd_lightning.errors import with_causes


def raised_from(error: Exception, cause: BaseException | None) -> Exception:
    error.__cause__ = cause
    return error


def test_causes_come_in_order_and_each_once() -> None:
    inner = ValueError("inner")
    inner.__context__ = KeyError("context")
    outer = raised_from(RuntimeError("outer"), inner)
    assert list(with_causes(outer)) == [outer, inner, inner.__context__]
    raised_from(inner, outer)  # a circle
    assert list(with_causes(outer)) == [outer, inner]
