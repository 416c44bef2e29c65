"""The page of ids is what the tests say."""

from tests.faults.index import PAGE, page


def test_the_page_is_as_the_tests_are() -> None:
    assert PAGE.read_text("utf-8") == page(), "python -m tests.faults.index"
