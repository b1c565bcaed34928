"""`_wire.record`: classes of named fields."""

from __future__ import annotations

import pickle

import pytest

from parallel._wire.record import Record


class Point(Record):
    x: int
    y: int = 7


class Other(Record):
    x: int
    y: int = 7


def test_a_field_is_given_by_place_by_name_or_not_at_all() -> None:
    assert Point(1, 2) == Point(1, y=2) == Point(y=2, x=1)
    assert (Point(1).x, Point(1).y) == (1, 7)


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})],
)
def test_what_does_not_fit_its_fields_is_an_error(
    values: tuple[int, ...], named: dict[str, int]
) -> None:
    with pytest.raises(TypeError, match="Point takes"):
        Point(*values, **named)


def test_its_fields_come_in_the_order_of_the_class() -> None:
    point = Point(y=2, x=1)
    assert list(point) == [1, 2]
    assert point._asdict() == {"x": 1, "y": 2}
    assert repr(point) == "Point(x=1, y=2)"
    match point:
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_two_are_equal_when_their_class_and_fields_are() -> None:
    assert Point(1) == Point(1)
    assert hash(Point(1)) == hash(Point(1))
    assert Point(1) != Point(2)
    assert Point(1) != Other(1)


def test_a_changed_copy_leaves_the_original_alone() -> None:
    point = Point(1)
    assert point._replace(y=3) == Point(1, 3)
    assert point == Point(1)
    with pytest.raises(TypeError, match="Point takes"):
        point._replace(z=3)


def test_it_travels() -> None:
    assert pickle.loads(pickle.dumps(Point(1, 2))) == Point(1, 2)
