"""A page to try the metric on: two queries, both results, and what each rule says of them and why.

    python -m excot.metrics.exec_acc.app                    three small databases of our own
    python -m excot.metrics.exec_acc.app spider/database    yours

As ``app.py`` of a Space it is what people see of the metric there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

from excot.demo.data import make_data
from excot.errors import ExcotError, import_error
from excot.execution import Databases, available_cores, describe
from excot.metrics.exec_acc.explain import Comparison, Judgement, Result, compare_queries, literal

WHOSE = {
    "set": "BIRD's official score",
    "multiset": "duplicates counted",
    "ordered": "order where the gold asks for it",
    "test_suite": "Spider's official score",
}
SHOWN_ROWS = 200

EXAMPLES = {
    "Duplicates": (
        "SELECT name FROM supplier WHERE supplier_id IN\n  (SELECT supplier_id FROM product WHERE price > 300)",
        "SELECT s.name FROM supplier AS s\n  JOIN product AS p ON s.supplier_id = p.supplier_id WHERE p.price > 300",
    ),
    "DISTINCT forgotten": ("SELECT DISTINCT city FROM supplier", "SELECT city FROM supplier"),
    "Columns swapped": ("SELECT name, city FROM supplier", "SELECT city, name FROM supplier"),
    "Order forgotten": (
        "SELECT name, since_year FROM supplier ORDER BY since_year DESC",
        "SELECT name, since_year FROM supplier",
    ),
    "Rows missing": (
        "SELECT label, price FROM product WHERE price >= 200",
        "SELECT label, price FROM product WHERE price > 300",
    ),
    "A model's answer": (
        "SELECT COUNT(*) FROM product WHERE category = 'garden'",
        "Products of the category garden have to be counted.\n\n```sql\n"
        "SELECT COUNT(*) FROM product WHERE category = 'garden'\n```",
    ),
    "Does not execute": ("SELECT name FROM supplier", "SELECT supplier_name FROM supplier"),
    "Not a query": ("SELECT name FROM supplier", "```sql\nDROP TABLE supplier\n```"),
}
"""On the database ``shop`` of the demonstration: the gold and the prediction."""

CSS = """
.verdicts {display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 12px;}
.verdict {border: 1px solid var(--border-color-primary); border-left: 5px solid; border-radius: 8px;
  padding: 10px 14px; background: var(--block-background-fill);}
.verdict.right {border-left-color: #16a34a;} .verdict.wrong {border-left-color: #dc2626;}
.verdict b {font-family: var(--font-mono);} .verdict small {color: var(--body-text-color-subdued); display: block;}
.verdict .says {float: right; font-weight: 600;}
.verdict.right .says {color: #16a34a;} .verdict.wrong .says {color: #dc2626;}
.verdict p {margin: 8px 0 0;}
.result .count, .schema .count {color: var(--body-text-color-subdued); font-weight: normal;}
.result .rows {max-height: 420px; overflow: auto; border: 1px solid var(--border-color-primary); border-radius: 8px;}
.result table {border-collapse: collapse; width: 100%; font-size: 14px; margin: 0 !important; border: 0 !important;}
.result th {position: sticky; top: 0; background: var(--background-fill-secondary); font-weight: 600;}
.result thead, .result tbody, .result tr {border: 0 !important;}
.result th, .result td {padding: 5px 12px !important; border: 0 !important; text-align: left;
  border-top: 1px solid var(--border-color-primary) !important;}
.result thead th {border-top: 0 !important;}
.result .number {text-align: right !important; font-variant-numeric: tabular-nums;}
.result .place {color: var(--body-text-color-subdued); width: 1%; font-size: 12px;}
.result pre {margin: 0 0 8px; white-space: pre-wrap; font-size: 13px;}
.result td.null {color: var(--body-text-color-subdued); font-style: italic;}
.result tr.only td {background: rgba(234, 179, 8, .2);}
.result .problem {border: 1px solid #dc2626; border-radius: 8px; padding: 10px 14px;}
.schema code {white-space: nowrap;}
"""


def database_names(databases: Databases) -> list[str]:
    """Every ``db_id`` of a folder.

    Raises:
        ExcotError: there is none.
    """
    folders = {path.name for path in databases.folder.iterdir() if (path / f"{path.name}.sqlite").is_file()}
    names = folders | {path.stem for path in databases.folder.glob("*.sqlite")}
    if not names:
        raise ExcotError(f"no database in {databases.folder}", "give the folder that holds <db_id>/<db_id>.sqlite")
    return sorted(names)


def verdicts_html(comparison: Comparison) -> str:
    """One card a rule."""
    return f'<div class="verdicts">{"".join(map(_card, comparison.judgements))}</div>'


def _card(judgement: Judgement) -> str:
    says = ("right", "✓ right") if judgement.right else ("wrong", "✗ wrong")
    return (
        f'<div class="verdict {says[0]}" data-rule="{judgement.rule}"><span class="says">{says[1]}</span>'
        f"<b>{judgement.rule}</b><small>{escape(WHOSE[judgement.rule])}</small>"
        f"<p>{escape(judgement.reason)}</p></div>"
    )


def result_html(title: str, result: Result, other: Result, sql: str | None = None) -> str:
    """A result as a table, with those rows marked that the other one does not have (or not as often).

    Args:
        title: whose result it is.
        result: the result.
        other: what it is compared with.
        sql: what was executed, where that is not plain to see.
    """
    executed = f"<pre>{escape(sql)}</pre>" if sql else ""
    if result.problem is not None:
        problem = f'<div class="problem">It {escape(result.problem)}.</div>'
        return f'<div class="result"><h3>{title}</h3>{executed}{problem}</div>'
    number = f"{'' if result.complete else 'more than '}{len(result.rows):,}"
    count = f"{number} row{'' if number == '1' else 's'}"
    count += f", the first {SHOWN_ROWS} shown" if len(result.rows) > SHOWN_ROWS else ""
    spare = Counter(other.rows)
    comparable = other.problem is None and result.complete and other.complete
    lines = []
    for place, row in enumerate(result.rows[:SHOWN_ROWS], start=1):
        spare[row] -= 1
        only = ' class="only"' if comparable and spare[row] < 0 else ""
        lines.append(f'<tr{only}><td class="place number">{place}</td>{"".join(map(_cell, row))}</tr>')
    kinds = ["number" if isinstance(value, (int, float)) else "text" for value in (result.rows or [result.columns])[0]]
    names = zip(kinds, result.columns, strict=True)
    head = "".join(f'<th class="{kind}">{escape(name)}</th>' for kind, name in names)
    return (
        f'<div class="result"><h3>{title} <span class="count">· {count}</span></h3>{executed}<div class="rows"><table>'
        f'<thead><tr><th class="place"></th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div></div>'
    )


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bytes):
        return f'<td class="null">{escape(literal(value))}</td>'
    if isinstance(value, str):
        return f"<td>{escape(value[:300])}{'…' if len(value) > 300 else ''}</td>"
    return f'<td class="number">{value}</td>'


def schema_html(databases: Databases, db_id: str) -> str:
    """The tables of a database, with some of their values; or why they cannot be read."""
    try:
        tables = describe(databases.paths(db_id)[0])
    except ExcotError as error:
        return f"<p>{escape(str(error))}</p>"
    parts = []
    for table in tables:
        columns = []
        for column in table.columns:
            about = f"<code>{escape(column.name)}</code> {escape(column.type)}"
            about += " (key)" if column.primary_key else ""
            about += "".join(f" → <code>{escape(parent)}.{escape(name)}</code>" for parent, name in column.references)
            about += f' <span class="count">{escape(", ".join(literal(value, 20) for value in column.samples))}</span>'
            columns.append(f"<li>{about}</li>")
        parts.append(f"<h4><code>{escape(table.name)}</code></h4><ul>{''.join(columns)}</ul>")
    return f'<div class="schema">{"".join(parts)}</div>'


def build(databases: Databases, examples: dict[str, tuple[str, str]] | None = None) -> Any:
    """The page, as `gradio.Blocks`.

    Args:
        databases: those that may be picked.
        examples: the gold and the prediction by name, on the database ``shop``.

    Raises:
        ExcotError: gradio is not installed, or there is no database.
    """
    try:
        import gradio as gr
    except ImportError:
        raise import_error("gradio", "app") from None

    names = database_names(databases)
    examples = examples or {}

    def show(db_id: str, gold: str, prediction: str) -> tuple[str, str, str]:
        if not (gold or "").strip() or not (prediction or "").strip():
            return "<p>Write both queries, then compare.</p>", "", ""
        try:
            seen = compare_queries(databases, db_id, gold, prediction)
        except ExcotError as error:
            return f"<p>{escape(str(error))}</p>", "", ""
        return (
            verdicts_html(seen),
            result_html("Gold", seen.gold, seen.prediction),
            result_html(
                "Prediction", seen.prediction, seen.gold, seen.sql if seen.sql != prediction.strip() else None
            ),
        )

    with gr.Blocks(title="Execution accuracy", analytics_enabled=False) as page:
        gr.Markdown(
            "# Execution accuracy of text-to-SQL\n"
            "Does the prediction return what the gold returns? Both are executed on the database, read-only, and four "
            "rules answer."
        )
        first = next(iter(examples.values()), ("", ""))
        with gr.Row():
            db_id = gr.Dropdown(
                names,
                value="shop" if examples else names[0],
                label="Database",
                elem_id="database",
                interactive=True,
                scale=1,
            )
            with gr.Accordion("Its tables", open=False, elem_id="schema"):
                gr.HTML(lambda name: schema_html(databases, name), inputs=[db_id])
        with gr.Row():
            look = {
                "language": "sql",
                "lines": 6,
                "max_lines": 20,
                "buttons": [],
                "min_width": 320,
                "interactive": True,
            }
            gold = gr.Code(first[0], label="Gold query", elem_id="gold", **look)
            prediction = gr.Code(
                first[1], label="Prediction: a query, or a model's whole answer", elem_id="prediction", **look
            )
        button = gr.Button("Compare", variant="primary", elem_id="compare")
        verdicts = gr.HTML(elem_id="verdicts", render=False)
        gold_rows, rows = gr.HTML(elem_id="gold-rows", render=False), gr.HTML(elem_id="prediction-rows", render=False)
        if examples:
            gr.Examples(
                [["shop", *pair] for pair in examples.values()],
                [db_id, gold, prediction],
                [verdicts, gold_rows, rows],
                show,
                example_labels=list(examples),
                run_on_click=True,
                cache_examples=False,
                label="Where the rules differ",
            )
        verdicts.render()
        with gr.Row():
            gold_rows.render()
            rows.render()
        gr.Markdown(
            "Marked rows are those that the other result lacks, or has fewer times. A query may take 5 seconds; only "
            "reading is allowed."
        )
        settings = {"inputs": [db_id, gold, prediction], "outputs": [verdicts, gold_rows, rows]}
        button.click(show, **settings, concurrency_limit=available_cores(), api_name="compare")
        page.load(show, **settings, api_name=False)
    return page


def main(argv: list[str] | None = None) -> int:
    """Serve the page until it is interrupted."""
    parser = argparse.ArgumentParser(prog="app.py", description="Try execution accuracy in the browser.")
    parser.add_argument("databases", nargs="?", help="the folder that holds <db_id>/<db_id>.sqlite; ours without one")
    parser.add_argument("--host", help="the address to listen at")
    parser.add_argument("--port", type=int, help="the port to listen at")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            if arguments.databases:
                page = build(Databases(arguments.databases))
            else:
                page = build(Databases(make_data(Path(scratch), seed=0) / "database"), EXAMPLES)
            from gradio.themes import Soft

            page.launch(
                server_name=arguments.host,
                server_port=arguments.port,
                theme=Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=CSS,
                ssr_mode=False,
                footer_links=[],
            )
        except (ExcotError, OSError) as error:  # a port that is taken, among others
            print(f"app.py: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
