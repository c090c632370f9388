"""The page in a real browser: it works, loads nothing, and runs nothing but its own script."""

from __future__ import annotations

import json
import shutil

import pytest
from tests.reports.samples import (
    NASTY,
    make_ablation,
    make_compression,
    make_diagnosis,
    make_records,
)

import sparsemend as sm
from sparsemend.sweeps import SweepResult

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
LAYERS = (*NASTY[:3], "layer1.0.conv1", "fc")


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; skips where it or its driver is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if found is None or driver is None:
        pytest.skip("Chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1280,800")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    opened = webdriver.Chrome(options=options, service=service)
    opened.set_page_load_timeout(120)
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def report():
    sweep = SweepResult(make_records(networks=NASTY[:2]))
    return sm.report(
        make_diagnosis(LAYERS), make_compression(), sweep, SweepResult(make_ablation())
    )


@pytest.fixture
def page(browser, report, tmp_path):
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    report.save(tmp_path / "report.html")
    browser.get_log("browser")
    browser.get_log("performance")
    url = (tmp_path / "report.html").as_uri()
    browser.get(url)
    # The page's own script shows the buttons; the driver does not always wait for it.
    ready = "return location.href === arguments[0] && !document.querySelector('.copy').hidden"
    WebDriverWait(browser, 60, ignored_exceptions=[WebDriverException]).until(
        lambda page: page.execute_script(ready, url)
    )
    return browser


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser):
    """What the page asked for, itself not counted."""
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in urls if url != browser.current_url]


def tip(browser):
    """What is shown, or None."""
    return browser.execute_script(
        "const tip = document.getElementById('tip'); return tip.hidden ? null : tip.innerText"
    )


def point_at(browser, mark, **more):
    """Move a pointer to the middle of a mark, in sight."""
    browser.execute_script(
        """
        const [mark, more] = arguments;
        mark.scrollIntoView({block: "center", behavior: "instant"});
        const box = mark.getBoundingClientRect();
        mark.closest(".plate").dispatchEvent(new PointerEvent("pointermove", {
          clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true, ...more,
        }));
        """,
        mark,
        more,
    )


def press(browser, plate, key):
    browser.execute_script(
        "arguments[0].focus(); arguments[0].dispatchEvent("
        "new KeyboardEvent('keydown', {key: arguments[1], bubbles: true}))",
        plate,
        key,
    )


def test_every_figure_is_drawn_without_a_complaint(page, report):
    sizes = page.execute_script(
        "return [...document.querySelectorAll('section')].map(section => "
        "[section.id, [...section.querySelectorAll('svg')].map(svg => {"
        "const box = svg.getBoundingClientRect(); return [box.width, box.height]})])"
    )
    assert [key for key, _ in sizes] == [figure.key for figure in report.figures]
    for figure, (_, drawn) in zip(report.figures, sizes, strict=True):
        assert len(drawn) == len(figure.plates)
        assert all(width > 50 and height > 30 for width, height in drawn)
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert complaints(page) == []
    assert set(requests(page)) <= {"data:,"}


def test_names_stay_text(page):
    assert page.execute_script("return document.scripts.length") == 1
    assert page.execute_script("return document.images.length") == 0
    labels = page.execute_script(
        "return [...document.querySelectorAll('#repairability text')].map(t => t.textContent)"
    )
    assert NASTY[0] in labels
    with pytest.raises(Exception, match="no such alert"):
        page.switch_to.alert  # noqa: B018


def test_hovering_shows_the_value(page):
    diagnosis = make_diagnosis(LAYERS)
    cells = page.find_elements("css selector", "#repairability g[data-tip] > [data-tip]")
    width = len(diagnosis.densities)
    point_at(page, cells[3 * width + 5])
    name, value = tip(page).split("\n")
    assert name == "layer1.0.conv1"
    assert value.startswith("density")
    assert float(value.split("RR ")[1]) == pytest.approx(diagnosis.rr[3, 5], rel=5.01e-3)
    point_at(page, cells[0])
    assert tip(page).split("\n")[0] == NASTY[0]


def test_points_near_the_pointer_are_meant(page):
    dot = page.find_element("css selector", "#recovery [data-tip='global'] > [data-tip]")
    point_at(page, dot)
    assert "sparsity 50" in tip(page)
    assert "over 3 seeds" in tip(page)
    point_at(page, dot, clientX=0, clientY=0)
    assert tip(page) is None


def test_keys_step_through_the_values(page):
    plate = page.find_element("css selector", "#repairability svg")
    assert plate.get_attribute("tabindex") == "0"
    press(page, plate, "ArrowRight")
    first = tip(page)
    press(page, plate, "ArrowRight")
    second = tip(page)
    press(page, plate, "ArrowDown")
    third = tip(page)
    assert first.split("\n")[0] == second.split("\n")[0] == NASTY[0]
    assert first != second
    assert third.split("\n")[0] == NASTY[1]
    assert third.split(":")[0].split("\n")[1] == second.split(":")[0].split("\n")[1]
    said = page.execute_script("return document.getElementById('said').textContent")
    assert said == ", ".join(third.split("\n", 1))
    press(page, plate, "Escape")
    assert tip(page) is None


def test_a_finger_shows_the_value(page):
    cell = page.find_element("css selector", "#before-and-after g[data-tip] > [data-tip]")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
    page.execute_script(
        "const box = arguments[0].getBoundingClientRect();"
        "arguments[0].dispatchEvent(new PointerEvent('pointerdown', {clientX: box.x + 5,"
        "clientY: box.y + 5, bubbles: true, pointerType: 'touch'}))",
        cell,
    )
    assert tip(page) == "dense\n90\u00a0%"


def copied(browser, clipboard):
    """Press the first button with a clipboard of our own; the numbers and what was copied."""
    return browser.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        let text = null;
        const write = arguments[0]
          ? async (given) => { text = given; }
          : async () => { throw new Error("not allowed"); };
        Object.defineProperty(navigator, "clipboard", {value: {writeText: write},
          configurable: true});
        const button = document.querySelector(".copy");
        const asked = button.textContent;
        button.click();
        const answered = () => {
          if (button.textContent === asked) return setTimeout(answered, 20);
          const details = button.parentNode.querySelector("details");
          done({numbers: details.querySelector("textarea").value, text, open: details.open,
            label: button.textContent, selected: document.activeElement.tagName});
        };
        answered();
        """,
        clipboard,
    )


def test_copying(page, report):
    found = copied(page, clipboard=True)
    assert found["text"] == found["numbers"] == report.figures[0].table.csv()
    assert (found["label"], found["open"]) == ("Copied", False)


def test_without_a_clipboard_the_numbers_are_shown_and_selected(page):
    found = copied(page, clipboard=False)
    assert found["text"] is None
    assert found["open"]
    assert found["selected"] == "TEXTAREA"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ground_follows_the_theme_and_paper_is_white(page, scheme):
    def ground(media):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    try:
        expected = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[scheme]
        assert ground("screen") == expected
        assert ground("print") == "rgb(255, 255, 255)"
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_a_phone_needs_no_sideways_scrolling(page):
    size = {"width": 375, "height": 812, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 375
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
