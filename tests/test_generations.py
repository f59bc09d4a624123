"""The stage ``generations`` against a real endpoint that misbehaves, and the other backends."""

from __future__ import annotations

import base64
import json
import socket
from collections import Counter
from pathlib import Path

import pytest
from chain import answers, ask, finished, make_data, make_run, place, read_data, rows_of
from planted import AZURE_KEY, OPENAI_KEY, PASSWORD
from servers import ChatServer, Reply, Request, chat, failure, obedient

from excot import cli
from excot.builders.generations import generate, seed_of
from excot.config import GenerateConfig, SftConfig
from excot.errors import ExcotError
from excot.llm.base import FatalBackendError
from excot.run import Run

pytestmark = pytest.mark.usefixtures("clean_environment")


# -- the rows


def test_every_question_has_exactly_n_answers_with_what_the_endpoint_said_of_them(tmp_path: Path) -> None:
    out = make_run(tmp_path)
    with ChatServer() as server:
        text = ask(out, server, temperature=0.7, max_tokens=99, seed=5)
    assert text == (
        "36 answers to 12 of 12 questions by tiny-2026 (84 prompt and 180 answer tokens), "
        f"in {out}\nnext: excot verify --out {out}"
    )
    rows, questions = rows_of(out, "generations"), rows_of(out, "questions")
    assert [{name: row[name] for name in questions[0]} for row in rows] == questions
    for row in rows:
        seed = seed_of(5, row["id"])
        said = {"finish_reason": "stop", "completion_tokens": None, "seed": seed}
        assert row["candidates"] == [{"text": f"seed {seed} choice {k}", **said} for k in range(3)]
        assert (row["prompt_tokens"], row["completion_tokens"], row["model"]) == (7, 15, "tiny-2026")
        assert json.loads(row["sampling"]) == {
            "n": 3,
            "few_shots": 0,
            "temperature": 0.7,
            "top_p": 1.0,
            "max_tokens": 99,
            "seed": seed,
        }
    assert len({row["sampling"] for row in rows}) == 12
    entry = Run(out).entry("generations")
    assert (entry["candidates"], entry["prompt_tokens"], entry["model"]) == (36, 84, "tiny-2026")
    assert entry["failed"] == {}
    assert (Path(out) / "prompts" / f"{rows[0]['prompt_id']}.jinja").is_file()


def test_tokens_add_up_where_the_endpoint_gives_one_answer_at_a_time(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with ChatServer(otherwise=lambda request: chat(f"{request.json['seed']}", completion_tokens=11)) as server:
        ask(out, server, n=3)
    rows = rows_of(out, "generations")
    assert len(server.requests) == 12
    assert [[candidate["completion_tokens"] for candidate in row["candidates"]] for row in rows] == [[11] * 3] * 4
    assert len({text for row in rows for text in answers(row)}) == 12
    assert Run(out).entry("generations")["completion_tokens"] == 132


def test_no_more_requests_are_in_flight_than_asked_for(tmp_path: Path) -> None:
    out = make_run(tmp_path, 24)
    with ChatServer(otherwise=lambda r: Reply(obedient(r).body, delay=0.03)) as server:
        ask(out, server, concurrency=5)
    assert server.most_at_once == 5
    assert len(server.requests) == 24


@pytest.mark.usefixtures("no_backoff")
def test_rate_limits_server_errors_and_broken_connections_change_nothing_in_the_rows(tmp_path: Path) -> None:
    data, seen = make_data(tmp_path / "data"), Counter()

    def moody(request: Request) -> Reply:
        troubles = [failure(429, "slow", headers={"Retry-After": "1"}), Reply(status=503), Reply(reset=True)]
        seen[place(request)] += 1
        trouble = seen[place(request)] + place(request) % 3  # each question meets them in another order
        return troubles[trouble % 3] if seen[place(request)] <= 4 else obedient(request)

    found = []
    for name, behaviour in (("calm", obedient), ("moody", moody)):
        out = read_data(data, tmp_path / name)
        with ChatServer(otherwise=behaviour) as server:
            ask(out, server, concurrency=4)
        found.append(rows_of(out, "generations"))
    assert len(server.requests) == 12 * 5
    assert found[0] == found[1]


def test_content_that_is_null_is_an_answer_without_text_and_said_where_it_is_the_rule(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = make_run(tmp_path, 4)
    with ChatServer(otherwise=chat(None, "", "SELECT 1", finish_reason="length")) as server:
        ask(out, server)
    assert [answers(row) for row in rows_of(out, "generations")] == [[None, "", "SELECT 1"]] * 4
    assert [record.getMessage()[:29] for record in caplog.records] == ["8 of 12 answers are empty: ra"]


def test_a_lone_surrogate_in_an_answer_does_not_break_the_dataset(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)
    with ChatServer(otherwise=chat("SELECT '\ud83d' 'né 😀 \x00'")) as server:
        ask(out, server, n=1)
    assert [answers(row) for row in rows_of(out, "generations")] == [["SELECT '?' 'né 😀 \x00'"]] * 2


# -- failures


def test_one_failing_question_is_recorded_and_the_same_command_asks_just_that_one_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = make_run(tmp_path)
    flags = ["generate", "--out", out, "--model", "tiny", "--n", "3", "--base-url"]
    refusing = [5]

    def picky(request: Request) -> Reply:
        return failure(400, "I will not say") if place(request) in refusing else obedient(request)

    with ChatServer(otherwise=picky) as server:
        assert cli.main([*flags, server.url]) == 0
        rows = rows_of(out, "generations")
        assert [len(row["candidates"]) for row in rows] == [3] * 5 + [0] + [3] * 6
        assert rows[5]["prompt_tokens"] is None
        assert list(Run(out).entry("generations")["failed"]) == ["data-train-0005"]
        assert "I will not say" in Run(out).entry("generations")["failed"]["data-train-0005"]

        server.requests.clear()
        refusing.clear()
        assert cli.main([*flags, server.url]) == 0
        assert [place(request) for request in server.requests] == [5]
        again = rows_of(out, "generations")
        assert [again[k] for k in range(12) if k != 5] == [rows[k] for k in range(12) if k != 5]
        assert answers(again[5]) == [f"seed {seed_of(0, 'data-train-0005')} choice {k}" for k in range(3)]
        assert Run(out).entry("generations")["failed"] == {}

        assert cli.main([*flags, server.url]) == 0
        assert len(server.requests) == 1


def _refused() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/v1"


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (failure(401, "Incorrect API key"), "OPENAI_API_KEY"),
        (failure(404, "no such model", code="model_not_found"), "no model 'tiny'"),
        (Reply("<!doctype html><title>Welcome</title>"), "--base-url"),
        (None, "cannot connect to"),
    ],
    ids=["key", "model", "web page", "refused"],
)
def test_what_every_question_would_meet_stops_the_stage_in_one_line(
    trouble: Reply | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = make_run(tmp_path, 40)

    def breaks(request: Request) -> Reply:
        return obedient(request) if len(server.requests) <= 10 else trouble

    with ChatServer(otherwise=breaks) as server:
        flags = ["generate", "--out", out, "--model", "tiny", "--n", "3", "--concurrency", "2"]
        done = 0
        if trouble is not None:
            assert cli.main([*flags, "--base-url", server.url]) == 1
            done = 10
            assert 11 <= len(server.requests) <= 12
        else:
            assert cli.main([*flags, "--base-url", _refused()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("excot: ")
    assert words in line

    assert len(finished(out)) == done
    assert not (Path(out) / "generations").exists()
    assert "generations" not in Run(out).manifest["stages"]
    with ChatServer() as server:  # the cause is gone: the same command goes on
        assert cli.main([*flags, "--base-url", server.url]) == 0
    assert len(server.requests) == 40 - done
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [3] * 40


def test_a_mistyped_model_is_mended_by_typing_it_right(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    only_tiny = lambda r: obedient(r) if r.json["model"] == "tiny" else failure(404, "no such model")  # noqa: E731
    with ChatServer(otherwise=only_tiny) as server:
        with pytest.raises(FatalBackendError):
            ask(out, server, model="tinny")
        ask(out, server, model="tiny")
    assert len(rows_of(out, "generations")) == 3


# -- secrets, prompts, other backends


@pytest.mark.parametrize("secret", [OPENAI_KEY, PASSWORD], ids=["key", "password"])
def test_a_secret_is_in_no_file_even_where_the_endpoint_echoes_it(
    secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = make_run(tmp_path, 3)

    def echo(request: Request) -> Reply:
        if place(request) != 1:
            return obedient(request)
        return failure(400, f"bad request by {request.headers['authorization']} ({secret})")

    with ChatServer(otherwise=echo) as server:
        if secret == OPENAI_KEY:
            monkeypatch.setenv("OPENAI_API_KEY", secret)
            url = server.url
        else:
            url = server.url.replace("://", f"://me:{secret}@")
        assert cli.main(["generate", "--out", out, "--model", "tiny", "--n", "1", "--base-url", url]) == 0
    credentials = secret if secret == OPENAI_KEY else base64.b64encode(f"me:{secret}".encode()).decode()
    assert all(request.headers["authorization"].endswith(credentials) for request in server.requests)
    printed = capsys.readouterr()
    contents = [path.read_bytes().decode("latin-1") for path in Path(out).rglob("*") if path.is_file()]
    contents += [json.dumps(rows_of(out, "generations")), printed.out, printed.err]
    assert len(Run(out).entry("generations")["failed"]) == 1
    assert not [text for text in contents if secret in text or credentials in text]


def test_worked_examples_reach_the_teacher_and_never_the_student(tmp_path: Path) -> None:
    from excot.builders.pairs import pair_rows
    from excot.builders.sft import sft_rows
    from excot.builders.verified import verify
    from excot.config import PairsConfig, VerifyConfig

    out = make_run(tmp_path, 3)
    golds = {k: row["gold_sql"] for k, row in enumerate(rows_of(out, "questions"))}
    with ChatServer(otherwise=lambda r: chat(golds[place(r)], "SELECT 1")) as server:
        ask(out, server, n=2, few_shots=2)
    roles = [[message["role"] for message in request.json["messages"]] for request in server.requests]
    assert roles == [["system", "user", "assistant", "user", "assistant", "user"]] * 3
    verify(VerifyConfig(out=out, processes=1))

    by_place = {place(request): request.json["messages"] for request in server.requests}
    for rows in (sft_rows(Run(out), SftConfig(out=out)), pair_rows(Run(out), PairsConfig(out=out))):
        prompts = [row["prompt"] for row in rows]
        assert prompts == [[by_place[k][0], by_place[k][-1]] for k in range(3)]


def test_a_template_of_ones_own_travels_with_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = make_run(tmp_path, 3)
    template = tmp_path / "mine.jinja"
    template.write_text("{# né #}Tables:\r\n{{ schema }}\nSay SQL: {{ question }}\n", "utf-8")
    with pytest.raises(ExcotError, match="put your examples into the template"):
        generate(GenerateConfig(out=out, model="tiny", prompt=str(template), few_shots=1))
    with ChatServer(otherwise=lambda r: chat("SELECT 1")) as server:
        ask(out, server, n=1, prompt=str(template))
    template.unlink()
    (row, *_) = rows_of(out, "generations")
    assert row["prompt_id"].startswith("mine-")
    (stored,) = (Path(out) / "prompts").iterdir()
    assert stored.name == f"{row['prompt_id']}.jinja"

    from excot.builders.training import student_prompts

    message = {"role": "user", "content": f"Tables:\n{row['schema']}\nSay SQL: {row['question']}"}
    assert student_prompts(Run(out))(row) == [message]
    assert message in [request.json["messages"][0] for request in server.requests]

    stored.write_text(stored.read_text("utf-8").replace("Say", "Shout"), "utf-8")
    with pytest.raises(ExcotError, match="was changed"):
        student_prompts(Run(out))(row)


def test_azure_is_asked_at_its_own_address_and_never_named_by_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = make_run(tmp_path, 3)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", AZURE_KEY)
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    with ChatServer() as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url.removesuffix("/v1"))
        assert cli.main(["generate", "--out", out, "--backend", "azure", "--model", "my-deployment", "--n", "2"]) == 0
    paths = {request.path for request in server.requests}
    assert paths == {"/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"}
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [2] * 3
    manifest = (Path(out) / "manifest.json").read_text()
    assert '"api_version": "2024-10-21"' in manifest
    assert AZURE_KEY not in manifest


def test_a_local_model_goes_through_the_stage_as_an_endpoint_does(tmp_path: Path, llama_folder: Path) -> None:
    model, found = str(llama_folder), []
    for name, batch_size in (("first", 4), ("second", 7)):
        (tmp_path / name).mkdir()
        out = make_run(tmp_path / name, 5)
        flags = ["--backend", "transformers", "--model", model, "--device", "cpu", "--prompt", "direct"]
        flags += ["--n", "3", "--max-tokens", "8", "--batch-size", str(batch_size)]
        assert cli.main(["generate", "--out", out, *flags]) == 0
        found.append(rows_of(out, "generations"))
    assert found[0] == found[1]
    for row in found[0]:
        assert len(set(answers(row))) > 1
        assert {candidate["finish_reason"] for candidate in row["candidates"]} <= {"stop", "length"}
        assert all(1 <= candidate["completion_tokens"] <= 8 for candidate in row["candidates"])
        assert (row["model"], row["prompt_tokens"] > 20) == (model, True)
