"""The buttons of `/` and `/clients/` that copy a command."""

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import Served
from tests.browser.visitor import Visitor

PASTED = """() => {
  const field = document.body.appendChild(document.createElement("textarea"));
  field.focus();
  return field;
}"""


def _pasted(visitor: Visitor) -> str:
    """What a person gets who pastes with the keyboard."""
    field = visitor.page.evaluate_handle(PASTED).as_element()
    assert field is not None
    visitor.page.keyboard.press("Control+V")
    return str(field.evaluate("(field) => field.value"))


def _lines(visitor: Visitor) -> list[str]:
    return visitor.page.locator("pre code").all_text_contents()


@pytest.mark.parametrize("number", range(5))
def test_each_button_copies_the_whole_line_below_it(api: Served, visitor: Visitor, number: int) -> None:
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    assert visitor.visit(f"{api.url}/clients/") == 200
    assert visitor.page.get_by_role("button", name="Copy: ").count() == len(_lines(visitor)) == 5
    visitor.page.get_by_role("button", name="Copy: ").nth(number).click()
    visitor.page.get_by_role("button", name="Copied: ").wait_for()
    assert _pasted(visitor) == _lines(visitor)[number]
    assert visitor.complaints == []


def test_the_first_page_has_a_button_that_copies_its_sample(api: Served, visitor: Visitor) -> None:
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    assert visitor.visit(api.url) == 200
    visitor.page.get_by_role("button", name="Copy: Run something").click()
    visitor.page.get_by_role("button", name="Copied: ").wait_for()
    assert _pasted(visitor) == visitor.page.locator("pre code").text_content()
    assert visitor.complaints == []


def test_without_https_the_buttons_copy_too(api: Served, visitor: Visitor) -> None:
    visitor.page.add_init_script("delete Navigator.prototype.clipboard")  # as browsers do on such a page
    assert visitor.visit(f"{api.url}/clients/") == 200
    visitor.page.get_by_role("button", name="Copy: TypeScript SDK, with npm").click()
    visitor.page.get_by_role("button", name="Copied: TypeScript SDK, with npm").wait_for()
    assert _pasted(visitor) == _lines(visitor)[3]


def test_a_line_that_the_browser_does_not_copy_is_selected(api: Served, visitor: Visitor) -> None:
    visitor.page.add_init_script("delete Navigator.prototype.clipboard; document.execCommand = () => false")
    assert visitor.visit(f"{api.url}/clients/") == 200
    visitor.page.get_by_role("button", name="Copy: ").first.click()
    visitor.page.get_by_role("button", name="Selected: ").wait_for()
    assert visitor.page.evaluate("getSelection().toString()") == _lines(visitor)[0]


def test_a_screen_reader_hears_that_a_line_was_copied(api: Served, visitor: Visitor) -> None:
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    assert visitor.visit(f"{api.url}/clients/") == 200
    visitor.page.get_by_role("button", name="Copy: ").first.click()
    visitor.page.get_by_role("status").filter(has_text="Copied: Command line").wait_for(state="attached")
    visitor.page.get_by_role("button", name="Copied: ").wait_for(state="detached")
    assert visitor.page.get_by_role("button", name="Copy: ").count() == 5


def test_without_scripts_the_page_has_all_lines_and_no_button(api: Served, chromium: Browser) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{api.url}/clients/")
    assert page.locator("pre code").count() == 5
    assert page.get_by_role("button").count() == 0
    context.close()
