"""What a farm and its workers say to each other, on its way."""

from __future__ import annotations

import pickle
import string

import pytest

from parallel.farm.messages import Report
from parallel.farm.tasks import Result

RESULTS = [Result(3, "value", 0.5), Result(5, ValueError, 1.0, failed=True)]


@pytest.mark.parametrize("report", [Report([]), Report(RESULTS), Report(RESULTS, 7, True, 12)])
def test_a_report_arrives_as_it_was_sent(report: Report) -> None:
    arrived = pickle.loads(pickle.dumps(report))
    assert arrived == report
    assert [type(each) for each in (arrived, *arrived.results)] == [
        type(each) for each in (report, *report.results)
    ]


def test_a_result_takes_few_bytes_of_a_report() -> None:
    letters = [Result(number, letter, 0.5) for number, letter in enumerate(string.ascii_letters)]
    assert len(pickle.dumps(Report(letters))) < 20 * len(letters) + 200
