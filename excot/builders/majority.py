"""The vote on a gold: whether most of the answers to a question agree on a result that is not the gold's.

Every candidate that ran has one vote, whatever its statement: twenty answers with one statement are twenty votes. A
candidate that failed has none. The votes of a wrong result count together where the results are equal by the rule
``set``. A result in which nothing is found (no row, or nothing but NULLs and zeros, as of a count) wins no vote: wrong
conditions of all kinds meet there. Any other is a majority when

- more than a share of the candidates that ran give it (``majority``, two thirds of them by default),
- so many candidates at least give it (``votes``), and
- it has more votes than the gold's own result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..execution import Measured, Outcome, Preview


@dataclass(frozen=True)
class Ballot:
    """How the candidates of a question stand to its gold, before any is executed again.

    Attributes:
        voters: candidates that ran.
        right: candidates with the gold's result, by rule ``set``.
        statements: the wrong statements that ran and returned rows, each with how many candidates wrote it.
    """

    voters: int
    right: int
    statements: Mapping[str, int]


@dataclass(frozen=True)
class Majority:
    """A result that most candidates agree on.

    Attributes:
        sql: the shortest of its statements.
        agree: candidates that give it.
        result: a look at it.
        permuted: whether it is the gold's with its columns in another order.
    """

    sql: str
    agree: int
    result: Preview
    permuted: bool


@dataclass(frozen=True)
class Rule:
    """What it takes to outvote a gold; see above."""

    majority: float
    votes: int

    def wins(self, agree: int, ballot: Ballot) -> bool:
        return agree > self.majority * ballot.voters and agree >= self.votes and agree > ballot.right

    def may_win(self, ballot: Ballot) -> bool:
        """Whether there is anything to find out: all wrong candidates together would be enough."""
        return self.wins(sum(ballot.statements.values()), ballot)


def cast(candidates: Sequence[Mapping[str, Any]]) -> Ballot:
    """The ballot of a question's verified candidates."""
    ran = [candidate for candidate in candidates if candidate["status"] == "ok"]
    right = sum(candidate["matches"]["set"] for candidate in ran)
    wrong = Counter(c["sql"] for c in ran if not c["matches"]["set"] and c["rows"] != 0)
    return Ballot(len(ran), right, dict(wrong))


def find_majority(ballot: Ballot, outcomes: Sequence[Outcome], rule: Rule) -> Majority | None:
    """The result that outvotes the gold, if there is one.

    Args:
        ballot: the question's.
        outcomes: of its statements, in their order, with fingerprints and previews.
        rule: what it takes.
    """
    groups: dict[str, list[tuple[str, Measured]]] = {}
    votes: Counter[str] = Counter()
    for (sql, count), outcome in zip(ballot.statements.items(), outcomes, strict=True):
        found = outcome.measured
        if outcome.matches.set or found is None or found.fingerprint is None or found.preview is None:
            continue
        if not found.preview.finds_nothing:
            votes[found.fingerprint] += count
            groups.setdefault(found.fingerprint, []).append((sql, found))
    for fingerprint, agree in votes.most_common(1):
        if rule.wins(agree, ballot):
            sql, found = min(groups[fingerprint], key=lambda group: (len(group[0]), group[0]))
            return Majority(sql, agree, found.preview, bool(found.permuted))
    return None
