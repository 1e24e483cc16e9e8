import pytest

from sr_transformers.marks import between, put

PAGE = "# Ä\n\n<!-- one -->\nold\n<!-- /one -->\n\nstays\n\n<!-- two -->\n<!-- /two -->\nend\n"


@pytest.fixture
def page(tmp_path):
    (tmp_path / "page.md").write_text(PAGE, encoding="utf-8")
    return tmp_path / "page.md"


def test_what_is_put_between_marks_is_found_there_and_the_rest_stays(page):
    assert (between(page, "one"), between(page, "two")) == ("old", "")
    put(page, "two", "| a\\1 |\n\n| ü |")
    assert between(page, "two") == "| a\\1 |\n\n| ü |"
    put(page, "one", "new")
    put(page, "two", "")
    put(page, "one", "newer")
    expected = PAGE.replace("old", "newer").replace("<!-- two -->\n", "<!-- two -->\n\n")
    assert page.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("text", ["", "<!-- x -->", "<!-- /x --><!-- x -->", "<!-- x --><!-- x --><!-- /x -->"])
def test_marks_that_are_missing_or_doubled_are_named_and_nothing_is_written(page, text):
    page.write_text(text)
    for act in (lambda: between(page, "x"), lambda: put(page, "x", "y")):
        with pytest.raises(ValueError, match=r"page\.md must hold <!-- x --> once and <!-- /x --> once behind it\."):
            act()
    assert page.read_text() == text
