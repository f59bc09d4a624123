"""Cards: Markdown with YAML front matter, of which we write one block, and all else is its owner's."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..atomic import replace_text
from ..errors import ExcotError

BEGIN, END = "<!-- excot:begin -->", "<!-- excot:end -->"
"""Only what stands between these markers is written anew; a user's own words around it stay."""

_TEXT_SHOWN, _ITEMS_SHOWN = 200, 2  # of an excerpt's strings and lists

# Markers count at the beginning of a line, so that words about them are no markers. A first one without its second
# begins no block: it would take a user's words with it.
_BLOCK = re.compile(rf"^{BEGIN}(?:(?!^{BEGIN}).)*?^{END}", re.DOTALL | re.MULTILINE)


def save_card(path: Path, front: dict[str, Any], body: str, generated: str) -> None:
    """Write a card in one step.

    Args:
        path: where.
        front: the front matter.
        body: what the card said until now, without its front matter.
        generated: what shall stand between the markers.
    """
    replace_text(path, card_text(front, body, generated))


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """The front matter and the rest of a card; neither where there is no such file.

    Raises:
        ExcotError: as `parse_card`, or the file is not text.
    """
    return parse_card(card_file(path), str(path))


def card_file(path: Path) -> str:
    """The text of a card's file, empty where there is none.

    Raises:
        ExcotError: it is not UTF-8.
    """
    try:
        return path.read_text("utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise ExcotError(f"{path} is not UTF-8 ({error})", "save it as UTF-8, or move it away") from None


def parse_card(text: str, where: str) -> tuple[dict[str, Any], str]:
    """The front matter and the rest of a card's text.

    Args:
        text: the whole card.
        where: how errors call it.

    Raises:
        ExcotError: the front matter is not YAML.
    """
    import yaml

    text = _plain(text)
    found = re.match(r"---\n(.*?\n)??---(?:\n|$)", text, re.DOTALL)
    if not found:
        return {}, text
    try:
        values = yaml.safe_load(found[1] or "")
    except yaml.YAMLError as error:
        raise ExcotError(
            f"the front matter of {where} is not YAML ({error})", "mend it, or move the file away"
        ) from None
    if values is not None and not isinstance(values, dict):
        return {}, text  # two rules with words between them
    return values or {}, text[found.end() :]


def card_text(front: dict[str, Any], body: str, generated: str) -> str:
    """The whole card: its front matter, its owner's words, and what we generate in the place it had, or at the end."""
    import yaml

    # Nothing in our block may look like its end, wherever its words come from.
    block = f"{BEGIN}\n{generated.replace('<!-- excot:', '&lt;!-- excot:')}\n{END}"
    before, after = _around(body)
    body = f"{body.rstrip()}\n\n{block}\n".lstrip() if after is None else f"{before}{block}{after}"
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n{body}"


def own_words(card: str) -> str:
    """A card without its front matter and without our block: equal for two cards if no word of their owner differs.

    Front matter that is not YAML counts as words.
    """
    try:
        _, body = parse_card(card, "")
    except ExcotError:
        body = _plain(card)
    return "\n\n".join(part.strip() for part in _around(body) if part and part.strip())


def render_card(template: str, **values: Any) -> str:
    """Render one of the templates of this folder, with the filters ``code``, ``prose``, ``known_as`` and ``count``."""
    from jinja2 import Environment, StrictUndefined

    text = (files(__package__) / template).read_text("utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters |= {"code": code, "prose": prose, "known_as": known_as, "count": "{:,}".format}
    return environment.from_string(text).render(**values).strip()


def code(text: Any) -> str:
    """A name as a code span, which can stand in a table as well, whatever it holds."""
    text = " ".join(str(text).split())
    ticks = fence(text, 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}".replace("|", "\\|")


def prose(text: Any) -> str:
    """Words on one line, in which nothing is Markdown or HTML."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(str(text).split()))


def fence(text: str, least: int = 3) -> str:
    """So many backticks that none in the text end what they begin."""
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])


def known_as(name: str) -> str:
    """The name of a model or a dataset; of a folder's path the last part, since the rest is one machine's business."""
    is_path = name.startswith(("/", "~", ".")) or name.count("/") > 1
    return Path(name).name if is_path else name


def excerpt(row: dict[str, Any]) -> str:
    """A row as JSON, its long strings and lists shortened. No HTML begins or ends in it, however it is rendered."""
    text = json.dumps(_shortened(row), indent=2, ensure_ascii=False, default=str)
    return text.replace("</", "<\\/").replace("<!--", "<\\u0021--").replace("-->", "--\\u003e")


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _TEXT_SHOWN:
        return f"{value[:_TEXT_SHOWN]}… ({len(value) - _TEXT_SHOWN:,} more characters)"
    if isinstance(value, list):
        more = [f"… ({len(value) - _ITEMS_SHOWN:,} more)"] if len(value) > _ITEMS_SHOWN else []
        return [_shortened(item) for item in value[:_ITEMS_SHOWN]] + more
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    return value


def _plain(text: str) -> str:
    """Text as every editor would save it: no byte order mark, and line ends of one kind."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _around(body: str) -> tuple[str, str | None]:
    """What stands before our block and what after it; ``None`` for the latter where there is no block."""
    blocks = list(_BLOCK.finditer(body))
    return (body[: blocks[-1].start()], body[blocks[-1].end() :]) if blocks else (body, None)
