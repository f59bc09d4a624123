"""A stand-in for text-generation-inference: its chat endpoint, which reads past ``n``, and ``/info``."""

from __future__ import annotations

from collections.abc import Iterable

from servers import Behaviour, ChatServer, Reply, Request, chat

INFO = {
    "model_id": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "model_sha": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
    "model_dtype": "torch.bfloat16",
    "max_concurrent_requests": 128,
    "max_input_tokens": 4095,
    "max_total_tokens": 4096,
    "version": "3.3.6",
}


def one_answer(request: Request) -> Reply:
    """What the server does with a request in order: ``n`` is read past."""
    return chat(f"seed {request.json['seed']}")


def refusal(message: str, status: int = 422, kind: str = "validation") -> Reply:
    """An error in the server's own form."""
    return Reply({"error": message, "error_type": kind}, status=status)


class TgiServer(ChatServer):
    """A scripted chat endpoint; what it is asked at ``/info`` is counted apart.

    Attributes:
        info: what it says of itself there.
        looks: how often it was asked there.
    """

    def __init__(self, script: Iterable[Behaviour] = (), otherwise: Behaviour = one_answer, info: Reply | None = None):
        super().__init__(script, otherwise)
        self.info = info or Reply(INFO)
        self.looks = 0

    @property
    def root(self) -> str:
        """The address without ``/v1``, as the server's own documentation writes it."""
        return self.url.removesuffix("/v1")

    def answer(self, request: Request) -> Reply:
        if request.path == "/info":
            self.looks += 1
            return self.info
        return super().answer(request)
