"""Arguments of ``mmcot-data rationales teacher``."""

import argparse
from pathlib import Path
from typing import get_args

from mmcot_data.questions import split_names

__all__ = ["add_demonstrations", "add_endpoint", "add_local", "add_request"]


def add_request(parser: argparse.ArgumentParser) -> None:
    """What is written, and how."""
    from mmcot_data.rationales import KEEP_RULES
    from mmcot_data.teacher.config import METHODS, AnswerExtraction

    parser.add_argument(
        "--model",
        required=True,
        help="folder or hub id of a causal or sequence-to-sequence model; with --url, its name on "
        "the server",
    )
    parser.add_argument("--method", choices=METHODS, default="zero-shot-cot")
    parser.add_argument(
        "--split",
        action="append",
        choices=split_names(),
        help="whose questions (default: train); may be given several times",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only the first N questions of each split"
    )
    parser.add_argument(
        "--samples", type=int, default=1, metavar="K", help="rationales of each question"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0: always the most probable (default)"
    )
    parser.add_argument(
        "--top-p", type=float, default=1.0, help="sample only from this much probability"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=512,
        metavar="N",
        help="of a rationale (default: %(default)s); one that is longer is cut off",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--captions", metavar="PRODUCER", help="append these to the context")
    parser.add_argument(
        "--answer-extraction",
        choices=get_args(AnswerExtraction),
        help="ask a second time for the answer, or read it in the rationale (default: direct with "
        "demonstrations, else two-step)",
    )
    parser.add_argument(
        "--keep",
        choices=KEEP_RULES,
        help="which rationales training is to use; a mark, nothing is deleted (default: as before, "
        "at first all)",
    )
    parser.add_argument(
        "--max-steps",
        type=int,
        default=4,
        metavar="N",
        help="least-to-most: sub-questions at most (default: %(default)s)",
    )


def add_local(parser: argparse.ArgumentParser) -> None:
    """A teacher on this machine."""
    from mmcot_data.teacher.config import Chat, Precision

    local = parser.add_argument_group("a model on this machine")
    local.add_argument("--revision", help="hub revision: branch, tag or commit")
    local.add_argument(
        "--chat",
        choices=get_args(Chat),
        help="prompts as messages by the chat template (default: auto, if the model has one)",
    )
    local.add_argument(
        "--precision",
        choices=get_args(Precision),
        help="default: auto, bf16 where it is fast, else fp32",
    )
    local.add_argument("--device", metavar="NAME", help="default: auto, CUDA if there is one")
    local.add_argument("--batch-size", type=int, metavar="N", help="texts at once (default: 8)")


def add_endpoint(parser: argparse.ArgumentParser) -> None:
    """A teacher on a server."""
    from mmcot_data.teacher.config import LimitParameter

    endpoint = parser.add_argument_group("a model behind an OpenAI-compatible server")
    endpoint.add_argument("--url", help="base of its API, such as http://localhost:8000/v1")
    endpoint.add_argument(
        "--api-key-variable",
        metavar="NAME",
        help="environment variable that holds the key (default: OPENAI_API_KEY)",
    )
    endpoint.add_argument(
        "--concurrency", type=int, metavar="N", help="requests at a time (default: 8)"
    )
    endpoint.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="for an answer (default: 600)"
    )
    endpoint.add_argument(
        "--retries", type=int, metavar="N", help="of a request that fails (default: 6)"
    )
    endpoint.add_argument(
        "--limit-parameter",
        choices=get_args(LimitParameter),
        help="what the server calls the token limit (default: max_tokens)",
    )
    endpoint.add_argument(
        "--no-thinking",
        action="store_true",
        default=None,
        help="send chat_template_kwargs with enable_thinking false, for models that would write "
        "their thoughts first (vLLM, SGLang, llama.cpp)",
    )


def add_demonstrations(parser: argparse.ArgumentParser) -> None:
    """What the prompts of two methods show first."""
    group = parser.add_argument_group("demonstrations of few-shot-cot and auto-cot")
    group.add_argument(
        "--demonstrations",
        type=Path,
        metavar="FILE",
        help="JSON lines: question, context (optional), choices, rationale, answer",
    )
    group.add_argument(
        "--demonstrations-from", metavar="PRODUCER", help="rationales of train questions"
    )
    group.add_argument("--demonstration-ids", metavar="ID,ID,…", help="which questions of those")
    group.add_argument(
        "--clusters", type=int, metavar="K", help="auto-cot: of train questions (default: 8)"
    )
    group.add_argument(
        "--cluster-model",
        metavar="MODEL",
        help="auto-cot: text encoder, folder or hub id (default: TF-IDF)",
    )
    group.add_argument("--cluster-revision", metavar="REVISION", help="its hub revision")
    group.add_argument(
        "--max-words", type=int, metavar="N", help="auto-cot: of a question (default: 60)"
    )
    group.add_argument(
        "--max-lines", type=int, metavar="N", help="auto-cot: of a rationale (default: 5)"
    )
    group.add_argument(
        "--max-tries", type=int, metavar="N", help="auto-cot: in a cluster (default: 8)"
    )
