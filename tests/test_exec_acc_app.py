"""The page to try the metric on: its words without a browser, and all of it in a headless Chromium.

The browser's tests run where gradio, Chromium and its driver are installed: the extra ``app``, and on Debian
``apt-get install chromium chromium-driver``. Everywhere else they are skipped.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from command import ROOT
from hostile import HOSTILE

from excot import ExcotError
from excot.demo.data import make_data
from excot.execution import RULES, Databases, file_hash
from excot.metrics.compute import compute
from excot.metrics.exec_acc import app
from excot.metrics.exec_acc.explain import MOST_ROWS, Comparison, compare_queries

NUMBERS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT {}) SELECT n FROM t"


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    return Databases(make_data(tmp_path_factory.mktemp("world"), seed=0) / "database")


def right(comparison: Comparison) -> list[bool]:
    assert [judgement.rule for judgement in comparison.judgements] == list(RULES)
    return [judgement.right for judgement in comparison.judgements]


def reasons(comparison: Comparison) -> list[str]:
    return [judgement.reason for judgement in comparison.judgements]


# In words

WORDS = {
    "duplicates": (
        "SELECT city FROM supplier WHERE name = 'Fernhill'",
        "SELECT city FROM supplier WHERE city = 'Porto'",
        (True, "The same row in both."),
        (False, "'Porto' stands once in the gold and twice in the prediction."),
        (False, "The rows differ already, duplicates counted."),
        (False, "The gold returns 1 row, the prediction 2."),
    ),
    "distinct": (
        "SELECT DISTINCT city FROM supplier",
        "SELECT city FROM supplier",
        (True, "The same 4 different rows in both."),
        (False, "'Lyon' stands once in the gold and twice in the prediction."),
        (False, "The rows differ already, duplicates counted."),
        (True, "Compared without DISTINCT: the same 6 rows."),
    ),
    "columns": (
        "SELECT name, city FROM supplier WHERE supplier_id < 3",
        "SELECT city, name FROM supplier WHERE supplier_id < 3",
        (
            False,
            "2 rows of the gold missing, such as ('Northwood', 'Oslo'); "
            "2 rows not in the gold, such as ('Oslo', 'Northwood').",
        ),
        (False, "The sets of rows differ already."),
        (False, "The rows differ already, duplicates counted."),
        (True, "The same 2 rows, with the columns in another order."),
    ),
    "order": (
        "SELECT name FROM supplier ORDER BY name DESC",
        "SELECT name FROM supplier ORDER BY name",
        (True, "The same 6 different rows in both."),
        (True, "The same 6 rows, duplicates counted."),
        (False, "The gold asks for an order, and row 1 is 'Northwood' there but 'Brightline' in the prediction."),
        (False, "The gold says ORDER BY somewhere, and the rows come in another order."),
    ),
    "order inside": (
        "SELECT name FROM supplier WHERE supplier_id IN (SELECT supplier_id FROM product ORDER BY price)",
        "SELECT name FROM supplier WHERE supplier_id < 6 ORDER BY name",
        (True, "The same 5 different rows in both."),
        (True, "The same 5 rows, duplicates counted."),
        (True, "The gold's outermost query has no ORDER BY: any order will do."),
        (False, "The gold says ORDER BY somewhere, and the rows come in another order."),
    ),
    "fewer columns": (
        "SELECT name, city FROM supplier",
        "SELECT name FROM supplier",
        (False, "The gold has 2 columns, the prediction 1."),
        (False, "The sets of rows differ already."),
        (False, "The rows differ already, duplicates counted."),
        (False, "The gold has 2 columns, the prediction 1."),
    ),
    "values": (
        "SELECT 1, NULL, x'00ff', 'a'",
        "SELECT '1', NULL, x'00ff', 'a'",
        (
            False,
            "1 row of the gold missing, such as (1, NULL, a BLOB of 2 bytes, 'a'); "
            "1 row not in the gold, such as ('1', NULL, a BLOB of 2 bytes, 'a').",
        ),
        (False, "The sets of rows differ already."),
        (False, "The rows differ already, duplicates counted."),
        (False, "No order of the columns makes the rows equal."),
    ),
    "nothing": (
        "SELECT name FROM supplier WHERE 0 ORDER BY name",
        "SELECT city FROM supplier WHERE 0",
        (True, "No row in both."),
        (True, "No row in both."),
        (True, "The rows come in the order that the gold asks for."),
        (True, "No row in both."),
    ),
    "long": (
        NUMBERS.format(MOST_ROWS + 5),
        NUMBERS.format(MOST_ROWS + 6),
        (False, "The results differ; they are too long to say where, or change."),
        (False, "The sets of rows differ already."),
        (False, "The rows differ already, duplicates counted."),
        (False, "The results differ; they are too long to say where, or change."),
    ),
}


@pytest.mark.parametrize("case", WORDS.values(), ids=WORDS)
def test_every_rule_says_why(databases, case):
    gold, prediction, *expected = case
    seen = compare_queries(databases, "shop", gold, prediction)
    assert list(zip(right(seen), reasons(seen), strict=True)) == expected


@pytest.mark.parametrize(
    ("gold", "prediction", "reason"),
    [
        ("SELECT 1", "SELECT nome FROM supplier", "The prediction does not execute (no such column: nome)."),
        ("SELECT 1", "No idea.", "The prediction holds no SQL: no complete block marked sql, and no text that"),
        ("SELECT 1", "```sql\nDROP TABLE supplier\n```", "The prediction is refused, as only reading is allowed ("),
        (
            "SELECT 1",
            NUMBERS.format(-1).replace("SELECT n FROM", "SELECT max(n) FROM"),
            "The prediction takes too long (",
        ),
        ("SELECT nome FROM supplier", "SELECT 1", "The gold does not execute (no such column: nome), so nothing can"),
        ("", "SELECT 1", "The gold does not execute (not a query: the statement has no result), so nothing can"),
    ],
)
def test_what_has_no_result_is_wrong_by_every_rule(databases, gold, prediction, reason):
    seen = compare_queries(databases, "shop", gold, prediction, seconds=0.5)
    assert not any(right(seen)) and all(words.startswith(reason) for words in reasons(seen))
    assert (seen.gold.problem is None) == (gold == "SELECT 1")
    assert (seen.prediction.problem is None) == (prediction == "SELECT 1")


def test_the_verdicts_are_the_metrics(databases):
    queries = [pair[place] for pair in list(app.EXAMPLES.values())[:4] for place in (0, 1)]
    pairs = [(gold, prediction) for gold in queries for prediction in queries[::2]]
    references = [{"db_id": "shop", "gold_sql": gold} for gold, _ in pairs]
    found = compute([prediction for _, prediction in pairs], references, databases, return_details=True)
    for pair, row in zip(pairs, found["details"], strict=True):
        seen = compare_queries(databases, "shop", *pair)
        assert right(seen) == list(row["samples"][0]["matches"].values())
        assert all(re.fullmatch(r"[A-Z0-9'(].*\.", reason) for reason in reasons(seen))


def test_a_suite_of_databases_is_told(tmp_path):
    """Equal on the database that is shown, and not on another one of its folder."""
    folder = make_data(tmp_path, seed=0) / "database"
    shutil.copy(folder / "shop" / "shop.sqlite", folder / "shop" / "same.sqlite")
    seen = compare_queries(Databases(folder), "shop", "SELECT name FROM supplier", "SELECT name FROM supplier LIMIT 6")
    assert reasons(seen)[3] == "The same 6 rows on all 2 databases."
    other = make_data(tmp_path / "other", seed=0) / "database" / "shop" / "shop.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("INSERT INTO supplier VALUES (7, 'New', 'Rome', 2000)")
    connection.close()
    shutil.copy(other, folder / "shop" / "same.sqlite")
    seen = compare_queries(Databases(folder), "shop", "SELECT name FROM supplier", "SELECT name FROM supplier LIMIT 6")
    assert right(seen) == [True, True, True, False]
    assert reasons(seen)[3] == "The results differ on another of the 2 databases in the folder."


def test_rows_that_never_come_are_not_waited_for(databases):
    """The comparison stops at the first rows; whoever wants to see the rest must not hang."""
    slow = NUMBERS.format(-1).replace("SELECT n FROM t", "SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT max(n) FROM t")
    started = time.monotonic()
    seen = compare_queries(databases, "shop", "SELECT 2", slow, seconds=0.5)
    assert time.monotonic() - started < 10
    assert not any(right(seen)) and str(seen.prediction.problem).startswith("cannot be shown (")
    assert reasons(seen)[0] == "The results differ; they are too long to say where, or change."


def test_no_statement_changes_a_database(databases):
    path = databases.paths("shop")[0]
    before = file_hash(path)
    for statement, _ in list(HOSTILE.values())[:20]:
        assert not any(right(compare_queries(databases, "shop", "SELECT 1", f"```sql\n{statement}\n```", 0.5)))
    assert file_hash(path) == before and len(list(path.parent.iterdir())) == 1


def test_a_database_that_is_missing_is_named(databases, tmp_path):
    with pytest.raises(ExcotError, match="no database 'none'"):
        compare_queries(databases, "none", "SELECT 1", "SELECT 1")
    assert app.database_names(databases) == ["league", "library", "shop"]
    with pytest.raises(ExcotError, match="no database in"):
        app.database_names(Databases(tmp_path))


# As a page


def test_what_a_query_returns_is_text_and_never_markup(databases):
    evil = "<script>alert(1)</script>"
    seen = compare_queries(databases, "shop", "SELECT 1", f"SELECT '{evil}' AS \"<b>\", NULL, 2.5, x'00'")
    page = app.result_html("Prediction", seen.prediction, seen.gold, evil) + app.verdicts_html(seen)
    assert "<script" not in page and "&lt;b&gt;" in page and unescape(page).count(evil) == 2
    assert '<td class="null">NULL</td><td class="number">2.5</td>' in page
    broken = compare_queries(databases, "shop", "SELECT 1", f'SELECT "{evil}x" FROM supplier s WHERE s."{evil}"')
    page = app.result_html("Prediction", broken.prediction, broken.gold) + app.verdicts_html(broken)
    assert "<script" not in page and evil in unescape(page)


def test_rows_are_marked_that_the_other_result_lacks(databases):
    seen = compare_queries(
        databases, "shop", "SELECT city FROM supplier WHERE supplier_id < 3", "SELECT city FROM supplier"
    )
    marked = re.findall(
        r'<tr class="only"><td class="place number">(\d+)</td><td>(\w+)',
        app.result_html("P", seen.prediction, seen.gold),
    )
    assert marked == [("3", "Porto"), ("4", "Lyon"), ("5", "Riga"), ("6", "Porto")]
    assert "only" not in app.result_html("Gold", seen.gold, seen.prediction)


def test_a_long_result_is_shown_in_part(databases):
    seen = compare_queries(databases, "shop", "SELECT 1", NUMBERS.format(MOST_ROWS + 1))
    page = app.result_html("Prediction", seen.prediction, seen.gold)
    assert "more than 1,000 rows, the first 200 shown" in page and page.count("<tr") == 201
    large = NUMBERS.format(500).replace("SELECT n FROM", "SELECT n, printf('%1000000d', n), zeroblob(1000000) FROM")
    seen = compare_queries(databases, "shop", "SELECT 1", large)
    page = app.result_html("Prediction", seen.prediction, seen.gold)
    assert "more than 1 row" in page and len(page) < 2_000 and "a BLOB of 1,000,000 bytes" in page
    seen = compare_queries(databases, "shop", "SELECT 1", NUMBERS.format(MOST_ROWS))
    assert "· 1,000 rows, the first 200 shown" in app.result_html("Prediction", seen.prediction, seen.gold)


def test_the_tables_are_described(databases):
    page = app.schema_html(databases, "shop")
    assert re.findall("<h4><code>(.*?)</code></h4>", page) == ["supplier", "product"]
    assert "<code>supplier_id</code> INTEGER → <code>supplier.supplier_id</code>" in page
    assert app.schema_html(databases, "none").startswith("<p>no database &#x27;none&#x27; in ")


def test_without_gradio_it_says_what_to_install(monkeypatch, databases, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert app.main([str(databases.folder)]) == 1
    assert capsys.readouterr().err == "app.py: gradio is not installed: pip install 'excot[app]'\n"
    assert app.main([str(databases.folder / "none")]) == 1
    assert capsys.readouterr().err.startswith("app.py: no such databases folder: ")


# In the browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


class Browser:
    """A headless Chromium, spoken to in the protocol of https://www.w3.org/TR/webdriver2."""

    def __init__(self, port: int):
        self._session = f"http://127.0.0.1:{port}"
        wait_until(lambda: self._send("GET", "/status")["ready"])
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        options = {"binary": CHROMIUM, "args": [*arguments, "--window-size=1280,1300"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self._session += "/session/" + self._send("POST", "/session", wanted)["sessionId"]

    def open(self, url: str) -> None:
        self._send("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function's body of JavaScript returns."""
        return self._send("POST", "/execute/sync", {"script": script, "args": arguments})

    def click(self, css: str) -> None:
        self._send("POST", f"/element/{self._find(css)}/click", {})

    def paste(self, css: str, text: str) -> None:
        """Put a text in the place of all that an editor holds."""
        self.click(css)
        self._send("POST", f"/element/{self._find(css)}/value", {"text": "\ue009a\ue000"})  # Ctrl-A, then let go
        self.run(
            "const data = new DataTransfer(); data.setData('text/plain', arguments[1]);"
            "const paste = new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true});"
            "document.querySelector(arguments[0]).dispatchEvent(paste)",
            css,
            text,
        )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._send("GET", "/screenshot")))

    def close(self) -> None:
        self._send("DELETE", "")

    def _find(self, css: str) -> str:
        (element,) = self._send("POST", "/element", {"using": "css selector", "value": css}).values()
        return element

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._session + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """The first value of it that is true."""
    end = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            if value := condition():
                return value
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver")
    port = free_port()
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        browser = Browser(port)
        yield browser
        browser.close()
    finally:
        driver.terminate()
        driver.wait()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Starts the page as a program of its own, and gives its address."""
    pytest.importorskip("gradio", reason="needs the extra app")
    running = []

    def serve(*words: object) -> str:
        port, folder = free_port(), tmp_path_factory.mktemp("away")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TMPDIR": str(folder)}
        # As a Space has it: the file alone, with excot installed.
        shutil.copy(app.__file__, folder / "app.py")
        command = [sys.executable, "app.py", *map(str, words), "--port", str(port)]
        log = open(folder / "log", "w")
        running.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
        address = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            assert running[-1].poll() is None, (folder / "log").read_text()
            return urllib.request.urlopen(address, timeout=60).status == 200

        wait_until(answers)
        return address

    yield serve
    for process in running:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def address(serve) -> str:
    return serve()


def verdicts(browser: Browser) -> dict[str, list[str]]:
    """Of every rule that the page shows: its verdict and its reason."""
    return browser.run(
        "const cards = [...document.querySelectorAll('.verdict')];"
        "return Object.fromEntries(cards.map(card => [card.dataset.rule,"
        "  [card.querySelector('.says').textContent, card.querySelector('p').textContent]]))"
    )


def table(browser: Browser, place: str) -> list[list[str]]:
    """The cells of a result, the names of the columns first."""
    return browser.run(
        "const rows = [...document.querySelectorAll(arguments[0] + ' tr')];"
        "return rows.map(row => [...row.cells].slice(1).map(cell => cell.textContent))",
        place,
    )


def test_one_picks_a_database_pastes_two_queries_and_sees_what_differs(browser, address, tmp_path):
    browser.open(address)
    wait_until(lambda: verdicts(browser).get("set") == ["✓ right", "The same 4 different rows in both."])
    browser.click("#database input")
    wait_until(lambda: browser.run("return document.querySelector('[role=option][aria-label=library]') !== null"))
    browser.click("[role=option][aria-label=library]")
    browser.click("#schema button")
    wait_until(lambda: "birth_year" in browser.run("return document.querySelector('#schema').textContent"))
    browser.paste("#gold .cm-content", "SELECT name, country FROM author\nWHERE country = 'Spain' ORDER BY name")
    browser.paste(
        "#prediction .cm-content",
        "Authors from Spain:\n\n```sql\nSELECT country, name\nFROM author WHERE country = 'Spain'\n```",
    )
    browser.click("#compare")
    wait_until(lambda: table(browser, "#gold-rows")[:1] == [["name", "country"]])
    assert table(browser, "#gold-rows")[1:] == [["Carla Ruiz", "Spain"], ["Ella Novak", "Spain"]]
    assert table(browser, "#prediction-rows") == [
        ["country", "name"],
        ["Spain", "Carla Ruiz"],
        ["Spain", "Ella Novak"],
    ]
    found = verdicts(browser)
    assert {rule: says for rule, (says, _) in found.items()} == {
        "set": "✗ wrong",
        "multiset": "✗ wrong",
        "ordered": "✗ wrong",
        "test_suite": "✓ right",
    }
    assert found["test_suite"][1] == "The same 2 rows, with the columns in another order."
    executed = browser.run("return document.querySelector('#prediction-rows pre').textContent")
    assert executed == "SELECT country, name\nFROM author WHERE country = 'Spain'"
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_an_example_is_one_click(browser, address):
    browser.open(address)
    wait_until(lambda: verdicts(browser))
    press = (
        "[...document.querySelectorAll('button')].find(button => button.textContent.trim() == arguments[0]).click()"
    )
    for label, reason in [
        ("Not a query", "The prediction is refused"),
        ("Does not execute", "does not execute (no such"),
    ]:
        browser.run(press, label)
        wait_until(lambda reason=reason: reason in verdicts(browser)["set"][1])
        assert {says for says, _ in verdicts(browser).values()} == {"✗ wrong"}
    wait_until(lambda: len(table(browser, "#gold-rows")) == 7)


def test_it_asks_nobody_else(browser, address):
    """A page that is shown without a network, and that tells nobody what is pasted into it."""
    browser.open(address)
    wait_until(lambda: verdicts(browser))
    asked = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert asked and all(name.startswith(address) for name in asked)


def test_it_shows_ones_own_databases(browser, serve, shared_data):
    browser.open(serve(shared_data / "spider" / "database"))
    wait_until(lambda: "Write both queries" in browser.run("return document.body.textContent"))
    assert not browser.run("return document.body.textContent.includes('Where the rules differ')")
    browser.paste("#gold .cm-content", "SELECT 1")
    browser.paste("#prediction .cm-content", "SELECT 1.0")
    browser.click("#compare")
    wait_until(lambda: verdicts(browser))
    assert {says for says, _ in verdicts(browser).values()} == {"✓ right"}
