"""The teacher's wordings, by kind of sub-question. Names in braces are facts of the sub-question."""

from __future__ import annotations

QUESTIONS: dict[str, tuple[str, ...]] = {
    "table": ("Where are the rows?", "Which rows are there to look at?", "What do we read from {tables}?"),
    "join": (
        "How do {tables} fit together?",
        "Which rows of {tables} belong to each other?",
        "What are the combined rows of {tables}?",
    ),
    "filter": (
        "Which rows satisfy this: {condition}?",
        "For which of these rows is it true that {condition}?",
        "Which rows remain when only those are kept where {condition}?",
    ),
    "group": (
        "What do we get for {values} in each group of {keys}?",
        "Grouped by {keys}, what comes out for {values}?",
        "How do the rows add up for each {keys}?",
    ),
    "having": (
        "Of the groups by {keys}, which have the property that {condition}?",
        "Which groups of {keys} remain if {condition}?",
        "Grouped by {keys}, where is it true that {condition}?",
    ),
    "order": (
        "In which order do the rows come, and what is kept: {keys}, {limit}?",
        "Which is {limit} by {keys}?",
        "How are the rows sorted by {keys}?",
        "What is {limit}?",
    ),
    "query": ("What is {gist}?", "Find {gist}.", "We need {gist}."),
    "cte": ("What does `{name}` hold: {gist}?", "First name a result `{name}`: {gist}."),
}

ANALYSES: dict[str, tuple[str, ...]] = {
    "main": (
        "The answer consists of {what}, read from {tables}.",
        "We are asked for {what}; the data is in {tables}.",
        "To answer this we need {what} from {tables}.",
        "What must come out is {what}. The tables to use: {tables}.",
        "We have to look this up step by step: {gist}.",
    ),
    "set": (
        "Two results have to be combined: {meaning}.",
        "This is a question about two sets. The answer is {meaning}.",
        "Split it in two: the answer is {meaning}.",
    ),
    "table": (
        "All rows of {tables} count, so nothing is filtered.",
        "Everything is in {tables}, and no condition is given.",
        "We simply read {tables}.",
    ),
    "join": (
        "The information is spread over {tables}; the link is {links}.",
        "{tables} have to be joined on {links}.",
        "Rows belong together where {links}.",
        "The question needs {tables} side by side.",
    ),
    "filter": (
        "Keep a row only if {condition}.",
        "The question restricts the rows: {condition}.",
        "This is a condition on single rows, so it goes into WHERE: {condition}.",
    ),
    "group": (
        "One group per value of {keys}; of each group we take {values}.",
        "Group the rows by {keys} and work out {values}.",
        "The question asks for something per {keys}, which calls for GROUP BY.",
    ),
    "having": (
        "Group by {keys}, then keep the groups where {condition}; that is HAVING, not WHERE.",
        "The condition ({condition}) is about whole groups of {keys}, so it goes into HAVING.",
        "Build the groups of {keys} first and drop those for which it does not hold that {condition}.",
    ),
    "order": (
        "Sort by {keys} and keep {limit}.",
        "With the order {keys}, the wanted part is {limit}.",
        "Sort the result by {keys}.",
        "Of what is left, only {limit} counts.",
    ),
    "query": (
        "The outer question needs this first.",
        "This has to be known before the question above it can be answered.",
        "Taken alone, this reads {tables} and returns {what}.",
        "A question of its own: its result is {what}.",
        "It can be answered separately and put in afterwards.",
    ),
    "cte": (
        "Later steps refer to this result by the name `{name}`.",
        "It gets a name, `{name}`, because it is easier to build on.",
    ),
}

REMARKS: dict[str, tuple[str, ...]] = {
    "outer": ("It refers to {outer} of the query around it, so it is evaluated for each of its rows.",),
    "samples": ("In the data, {samples}.", "Note that {samples}.", "The schema shows that {samples}."),
    "columns": ("Here {columns}.", "According to the schema, {columns}.", "The columns in use: {columns}."),
}
"""Sentences that may follow an analysis where the fact of that name is known."""

LEADS: dict[str, tuple[str, ...]] = {
    "table": (", all rows:", ":", " reads the table:"),
    "join": (", the joined rows:", ":", " becomes a join:"),
    "filter": (", with the condition added:", ":", " adds a WHERE clause:"),
    "group": (", grouped:", ":", " adds GROUP BY:"),
    "having": (", grouped and filtered:", ":", " adds GROUP BY and HAVING:"),
    "order": (", in order:", ":", " adds the order:"),
    "query": (":", ", as a query of its own:", " on its own:"),
    "cte": (", the named result:", ":", " as the body of the WITH clause:"),
}

ASSEMBLED: dict[str, tuple[str, ...]] = {
    "main": (
        "Return {what}.",
        "From these rows, select {what}.",
        "What is left is to select {what}.",
        "Put the pieces together and return {what}.",
        "The select list is {what}.",
        "Only the select list is missing now.",
    ),
    "set": (
        "Put {word} between the results of {left} and {right}: {meaning}.",
        "Combine sub-questions {left} and {right} with {word}.",
        "The two queries are joined by {word}, which leaves {meaning}.",
    ),
}

SET_MEANINGS: dict[str, str] = {
    "UNION": "whatever is in the result of <{left}> or of <{right}>",
    "INTERSECT": "what the results of <{left}> and <{right}> have in common",
    "EXCEPT": "what is in the result of <{left}> but not of <{right}>",
}

SIMPLIFICATIONS: dict[str, tuple[str, ...]] = {
    "table": (
        "The `SELECT *` is only a thought; the main question reads the table directly.",
        "One SELECT does it.",
        "Nothing needs to be nested.",
    ),
    "join": (
        "The joined rows need no query of their own, the joins go into FROM.",
        "The joins stay in FROM of the final query.",
    ),
    "filter": (
        "The condition moves into the WHERE clause of the same SELECT.",
        "Filtering and selecting happen in one SELECT.",
    ),
    "group": ("Grouping and selecting fit into one SELECT.", "GROUP BY follows directly, without a derived table."),
    "having": ("HAVING stands right behind GROUP BY.", "The groups are filtered in place."),
    "order": ("The order is applied last, in the same query.", "Sorting needs no extra nesting."),
    "query": ("The nested queries stay where their results are used.", "Sub-queries are put in where <n> stood."),
    "cte": ("WITH keeps the named results readable.", "The named results go in front, in a WITH clause."),
    "set": ("Both sides are kept as they are.", "Neither side can be folded into the other, so both stay."),
    "main": (
        "Only the columns that are asked for are returned.",
        "Columns that only served the steps are left out.",
        "No further join or column is needed.",
    ),
}

CLOSINGS = (
    "The final query:",
    "Final SQL:",
    "So the whole query is:",
    "Put together:",
    "This gives the final query:",
)
