"""The command ``mmcot-data``.

Exit codes: 0 all done, 1 an explained error, 2 bad usage, 3 done but some pictures failed, 130
interrupted.
"""

import argparse
import sys
from collections.abc import Sequence

from mmcot_data import __version__
from mmcot_data.cli import (
    captions,
    download,
    export,
    extract,
    import_features,
    inputs,
    inspect,
    questions,
    rationales,
    sample,
    verify,
)
from mmcot_data.errors import MmcotError, how_to_install

__all__ = ["main"]

_EXTRAS = {
    **dict.fromkeys(
        ("PIL", "timm", "tokenizers", "torch", "torchvision", "transformers"), "extract"
    ),
    **dict.fromkeys(("httpx2", "huggingface_hub"), "download"),
    **dict.fromkeys(("openai", "sklearn"), "teacher"),
}
"""Which extra of ours installs a package."""

_EPILOG = """\
the whole way, on a data set that needs no download:
  mmcot-data sample sample
  mmcot-data extract sample --encoder tiny --out shards
  mmcot-data inputs shards --prompt-format QCM-LE --out inputs.parquet

`mmcot-data COMMAND --help` explains a command, with examples.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments; those of the process if None.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except MmcotError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _fail(
            f"this command needs the package {error.name}, which is not installed; install what "
            f"it needs with: {how_to_install(extra)}"
        )
    except OSError as error:
        return _fail(f"the system refused: {error}")
    except KeyboardInterrupt:
        print("mmcot-data: interrupted; run the same command to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmcot-data",
        description="Questions, pictures and feature shards for Multimodal Chain-of-Thought.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mmcot {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        sample,
        download,
        questions,
        extract,
        captions,
        rationales,
        inspect,
        verify,
        inputs,
        export,
        import_features,
    ):
        command.add_parser(commands)
    return parser


def _fail(message: str) -> int:
    print(f"mmcot-data: {message}", file=sys.stderr)
    return 1
