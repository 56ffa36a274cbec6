"""A teacher behind an OpenAI-compatible server: ``POST {url}/chat/completions``."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice

from mmcot_data.errors import GenerationError
from mmcot_data.teacher.base import Completion, Request, Steps
from mmcot_data.teacher.config import EndpointConfig
from mmcot_data.teacher.prompts import STOP

__all__ = ["EndpointTeacher"]

T = TypeVar("T")

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0
"""Seconds, before what is no chat completion is asked for again."""
_SEED_BITS = 31
"""What servers accept as a seed."""
_TOO_LONG: Final = re.compile(
    r"context_length_exceeded|exceed_context_size_error|context (?:length|size|window)"
    r"|`inputs` (?:tokens \+ `max_new_tokens` must be <=|must have less than)",
    re.IGNORECASE,
)
"""How vLLM and most others, llama.cpp and TGI say that a prompt leaves no room."""
_CONTINUE = "What is complete stays; the same command goes on with the rest"


class EndpointTeacher:
    """A model on a server.

    Refusals that may pass (429, and 408, 409 and all from 500), lost connections, timeouts and
    answers that are no chat completion are tried again, after as long as the server asks for or
    longer each time.

    Args:
        config: The request. The key is read from the environment, and goes nowhere but to the
            server.

    Raises:
        GenerationError: If what the environment holds can't be a key.
    """

    batch_size = None

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        key = _read_key(config.api_key_variable)
        # The client would send what the environment says of OpenAI's accounts to any server.
        omitted = ["OpenAI-Organization", "OpenAI-Project", *([] if key else ["Authorization"])]
        self._headers: Any = {name: openai.Omit() for name in omitted}
        self._client = openai.OpenAI(
            base_url=config.url,
            api_key=key or "none",
            max_retries=config.retries,
            timeout=config.timeout,
        )
        self._fingerprints: set[str | None] = set()

    def notes(self) -> dict[str, Any]:
        """The server's host and what it calls its own version."""
        return {
            "host": urlsplit(self._config.url).hostname,
            "system_fingerprints": sorted(each for each in self._fingerprints if each),
            "openai": version("openai"),
        }

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def work(self, chains: Sequence[Steps[T]]) -> Iterator[list[tuple[int, T]]]:
        """Work through chains in threads, each through one at a time.

        After an error no chain is begun, and those under way are waited for: they are paid. The
        threads are daemons: an interrupted process does not wait.
        """
        places: SimpleQueue[int] = SimpleQueue()
        results: SimpleQueue[tuple[int, T] | Exception | None] = (
            SimpleQueue()
        )  # None: a thread ends
        stopped = threading.Event()

        def take_chains() -> None:
            try:
                while not stopped.is_set():
                    place = places.get_nowait()
                    results.put((place, self._follow(chains[place])))
            except Empty:
                pass
            except Exception as error:  # raised again below
                stopped.set()
                results.put(error)
            finally:
                results.put(None)

        for place in range(len(chains)):
            places.put(place)
        num_running = min(self._config.concurrency, len(chains))
        errors: list[Exception] = []
        try:
            for _ in range(num_running):
                threading.Thread(target=take_chains, daemon=True).start()
            while num_running:
                group = [results.get()]
                while not results.empty():
                    group.append(results.get())
                num_running -= group.count(None)
                errors += [each for each in group if isinstance(each, Exception)]
                if finished := [each for each in group if isinstance(each, tuple)]:
                    yield finished
        finally:
            stopped.set()
        if errors:
            raise errors[0]

    def complete(self, request: Request) -> Completion:
        """Complete one request.

        Raises:
            GenerationError: If the server refuses it, can't be reached, or answers nonsense.
        """
        for attempt in range(self._config.retries + 1):
            if attempt:
                time.sleep(min(_FIRST_WAIT * 2 ** (attempt - 1), _LONGEST_WAIT))
            completion = self._send(request)
            if completion is not None:
                return completion
        raise GenerationError(
            f"{self._config.url} answered {self._config.retries + 1} times with what is no chat "
            "completion; expected the base URL of an OpenAI-compatible API, which usually ends in "
            f"/v1. {_CONTINUE}"
        )

    def _follow(self, chain: Steps[T]) -> T:
        request = next(chain)
        while True:
            completion = self.complete(request)
            try:
                request = chain.send(completion)
            except StopIteration as end:
                result: T = end.value
                return result

    def _send(self, request: Request) -> Completion | None:
        """The server's answer; None if it is no chat completion."""
        sent: dict[str, Any] = {self._config.limit_parameter: request.max_new_tokens}
        if request.temperature > 0:
            sent["seed"] = request.seed % 2**_SEED_BITS
            sent["top_p"] = request.top_p
        if self._config.no_thinking:
            sent["extra_body"] = {"chat_template_kwargs": {"enable_thinking": False}}
        try:
            found: object = self._client.chat.completions.create(
                model=self._config.model,
                messages=[{"role": "user", "content": request.prompt}],
                temperature=request.temperature,
                stop=[STOP],
                extra_headers=self._headers,
                **sent,
            )
        except openai.APIStatusError as error:
            return self._judge(error)
        except openai.APIConnectionError as error:
            what = "did not answer in time" if _is_timeout(error) else "cannot be reached"
            raise GenerationError(
                f"{self._config.url} {what}, tried {self._config.retries + 1} times "
                f"({_lost(error)}): see that the server runs. {_CONTINUE}"
            ) from error
        except (openai.APIResponseValidationError, ValueError):
            return None
        completion = _read(found)
        if completion is not None and isinstance(found, ChatCompletion):
            self._fingerprints.add(found.system_fingerprint)
        return completion

    def _judge(self, error: openai.APIStatusError) -> Completion:
        """What a refusal means: an outcome of the one request, or the end."""
        status, said = error.status_code, _reason(error)
        if status in (400, 413, 422):
            if error.code == "content_filter":
                return Completion(text="", finish_reason="content_filter")
            if _TOO_LONG.search(f"{error.code} {error.type} {said}"):
                return Completion(text="", finish_reason="too_long")
        where = f"{self._config.url} refuses the model {self._config.model!r}"
        variable = self._config.api_key_variable
        advice = "see what the server says"
        if status in (401, 403):
            if os.environ.get(variable):
                advice = f"the key in the environment variable {variable} is not one of this server"
            else:
                advice = f"set the environment variable {variable} to a key of this server"
        elif status == 404:
            advice = (
                "give a --model that the server has, and the --url of its API, which usually ends "
                "in /v1"
            )
        elif status == 429 or status >= 500:
            advice = f"tried {self._config.retries + 1} times; wait, or lower --concurrency"
        raise GenerationError(f"{where} ({status}: {said}): {advice}. {_CONTINUE}") from error


def _read(found: object) -> Completion | None:
    """What a server's answer says; None if it is no chat completion.

    The client's types promise more than it checks.
    """
    choices = found.choices if isinstance(found, ChatCompletion) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.message if isinstance(choice, Choice) else None
    if choice is None or not isinstance(message, ChatCompletionMessage):
        return None
    content: object = message.content
    reason: object = choice.finish_reason or "stop"
    if message.refusal and not content:
        content, reason = "", "refusal"
    if not isinstance(content, str | None) or not isinstance(reason, str):
        return None
    text = (content or "").partition(STOP)[0]
    # Half of a surrogate pair can't be stored.
    return Completion(text=text.encode(errors="replace").decode(), finish_reason=reason)


def _read_key(variable: str) -> str | None:
    """The key in an environment variable; None if there is none."""
    key = os.environ.get(variable)
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise GenerationError(
            f"the environment variable {variable} holds no key: expected printable ASCII "
            "characters, found others among them, such as blanks or the end of a line"
        )
    return key or None


def _is_timeout(error: openai.APIConnectionError) -> bool:
    return isinstance(error, openai.APITimeoutError)


def _lost(error: BaseException) -> str:
    """Why a connection failed, in the system's words.

    Those of the client may quote headers, and with them the key.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return type(error.__cause__ or error).__name__
    return _one_line(str(cause)) or type(cause).__name__


def _reason(error: openai.APIStatusError) -> str:
    """What the server says, in whatever form."""
    said = error.body
    if isinstance(said, dict):
        said = said.get("message") or said
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    return _one_line(text if said else str(error))


def _one_line(text: str) -> str:
    return f"{' '.join(text.split()).rstrip('.'):.300}"
