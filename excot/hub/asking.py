"""What the Hub and the network answer when they refuse, as one line with a remedy."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ..errors import ExcotError, first_line

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

T = TypeVar("T")
log = logging.getLogger("excot")


class Passing(ExcotError):
    """The Hub or the network failed; a little later it may not."""


class Refused(ExcotError):
    """The Hub has understood what is asked for, and does not do it; what it has given before is no answer instead."""


class NoSuchRepo(Refused):
    """There is no such repository, or it may not be seen."""


class Conflict(Refused):
    """Somebody else was faster."""


PAUSES = (2.0, 8.0, 30.0)
"""Seconds to wait before trying again; what the clients themselves repeat comes on top."""

_AGAIN = "start the same command again: what was uploaded stays there"


@contextmanager
def asking(repo: str, kind: str = "dataset", revision: str | None = None) -> Iterator[None]:
    """Ask the Hub about a repository; every refusal becomes an `ExcotError`.

    Args:
        repo: its id.
        kind: ``dataset``, ``model`` or ``space``.
        revision: the tag, branch or commit that is asked for.
    """
    from httpx2 import HTTPError
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except HfHubHTTPError as error:
        raise _refusal(repo, kind, revision, error) from error
    except HFValidationError as error:
        raise Refused(
            f"{repo!r} cannot be the name of a repository", "give ORG/NAME, of letters, digits and . _ -"
        ) from error
    except LocalTokenNotFoundError as error:
        raise _unknown() from error
    except OfflineModeIsEnabled as error:
        raise ExcotError("the Hub is not asked while HF_HUB_OFFLINE is set", "unset it") from error
    except RuntimeError as error:  # of an upload, whose own reason stands behind it
        reasons = [without_queries(first_line(reason)) for reason in (error, error.__cause__) if reason]
        raise Passing(
            f"an upload to the Hub failed ({': '.join(reasons)})",
            f"check the network, then {_AGAIN}",
        ) from error
    except (HTTPError, ConnectionError) as error:
        raise Passing(
            f"the connection to the Hub failed ({without_queries(first_line(error))})",
            f"check the network, then {_AGAIN}",
        ) from error
    except ValueError as error:  # of what `create_commit` finds wrong before it uploads, or of a reply without sense
        if "Invalid metadata" in str(error):
            raise ExcotError(
                f"the Hub does not take the head of the card ({without_queries(' '.join(str(error).split()))})",
                "mend the YAML at the top of README.md in the folder",
            ) from error
        raise ExcotError(f"the Hub's reply makes no sense ({without_queries(first_line(error))})", _AGAIN) from error


def patiently(work: Callable[[], T]) -> T:
    """Do what can be repeated from its beginning again where the Hub or the network failed.

    Raises:
        Passing: it failed to the end.
    """
    for pause in PAUSES:
        try:
            return work()
        except Passing as error:
            log.warning("%s; trying again in %.0f s", error.problem, pause)
            time.sleep(pause)
    return work()


def _refusal(repo: str, kind: str, revision: str | None, error: HfHubHTTPError) -> ExcotError:
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        DisabledRepoError,
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    said = without_queries(error.server_message or first_line(error))
    # Of a repository that one may not see the Hub says that there is none, and of one's own absent ones as well.
    if isinstance(error, GatedRepoError):
        return Refused(f"the {kind} {repo} is gated", f"ask for access on its page, {_page(repo, kind)}")
    if isinstance(error, DisabledRepoError):
        return ExcotError(f"the {kind} {repo} is disabled on the Hub", "ask its owner")
    if isinstance(error, RepositoryNotFoundError):
        if get_token() is None:
            return NoSuchRepo(
                f"there is no {kind} {repo} on the Hub that one may see without a token",
                "check the name; for a private one: hf auth login, or set HF_TOKEN",
            )
        return NoSuchRepo(
            f"there is no {kind} {repo} on the Hub that your token may see", "check the name and whose token it is"
        )
    if isinstance(error, RevisionNotFoundError):
        return ExcotError(
            f"the {kind} {repo} has no revision {revision!r}", "give one of its tags, branches or commits"
        )
    if isinstance(error, EntryNotFoundError):
        return ExcotError(f"the {kind} {repo} has no such file ({said})", "has it changed meanwhile? start again")
    if status == 401:
        return (
            _unknown()
            if get_token() is None
            else ExcotError(
                "the Hub does not know your token", "make another one, then hf auth login, or set HF_TOKEN"
            )
        )
    if status == 403:
        other = ", or --create-pr" if kind == "dataset" else ""
        return ExcotError(
            f"you may not write to the {kind} {repo} ({said})",
            f"name yourself or an organisation of yours, and use a token that may write{other}",
        )
    if status in (409, 412):
        return Conflict(f"{repo} changed while it was being written ({said})", _AGAIN)
    if status == 413:
        return ExcotError(f"a file is too large for the Hub ({said})", "split it")
    if status == 429:
        return Passing("the Hub takes no more requests for now", f"wait a few minutes, then {_AGAIN}")
    if status >= 500:
        return Passing(f"the Hub fails (status {status}: {said})", f"see status.huggingface.co; then {_AGAIN}")
    return ExcotError(f"the Hub refused {repo} (status {status}: {said})", "mend what it names, then start again")


def without_queries(text: str) -> str:
    """Text whose addresses have lost their queries: an upload's address is signed there, and as good as a key."""
    return re.sub(r"(https?://[^\s?'\"]*)\?[^\s'\")]*", r"\1", text)


def _unknown() -> ExcotError:
    return ExcotError("the Hub does not know who you are", "hf auth login, or set HF_TOKEN")


def _page(repo: str, kind: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'' if kind == 'model' else kind + 's/'}{repo}"
