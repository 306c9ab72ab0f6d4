"""What the central station keeps of the ward."""

from stream.dashboard.ward import RIBBON_N, Ribbon


def test_a_ribbon_keeps_the_newest_windows_in_order() -> None:
    ribbon = Ribbon()
    assert list(ribbon) == []
    told = [(float(i), "AF" if i % 3 else "N") for i in range(RIBBON_N + 7)]
    for at_s, rhythm in told[:5]:
        ribbon.add(at_s, rhythm)
    assert list(ribbon) == told[:5]
    for at_s, rhythm in told[5:]:
        ribbon.add(at_s, rhythm)
    assert list(ribbon) == told[7:]
