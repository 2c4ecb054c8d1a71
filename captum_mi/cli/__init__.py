"""The command line: parsing and printing only, one command a file."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from captum_mi.cli import estimate, evaluate, explain, fit, infomax, plane
from captum_mi.cli._options import in_flags

if TYPE_CHECKING:
    from collections.abc import Sequence


class Command(Protocol):
    """A command's file: its help, its arguments, what the library's are called, what it does."""

    HELP: str
    DESCRIPTION: str
    EXAMPLES: str
    FLAGS: dict[str, str]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's arguments."""

    def run(self, options: argparse.Namespace) -> None:
        """Does what the command is for."""


COMMANDS: dict[str, Command] = {
    "explain": explain,
    "evaluate": evaluate,
    "fit": fit,
    "estimate": estimate,
    "plane": plane,
    "infomax": infomax,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``captum-mi``; returns the exit status: 0, 2 for bad input, 130 when stopped."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    options, rest = _parser().parse_known_args(arguments)

    def say(message: object) -> None:
        line = " ".join(in_flags(str(message), options.flags).split())
        print(f"captum-mi {options.command}: {line}", file=sys.stderr)

    told: set[str] = set()

    def warn_once(message: Warning | str, *_args: object, **_kwargs: object) -> None:
        if str(message) not in told:
            told.add(str(message))
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = warn_once
        try:
            _take(rest, options)
            options.run(options)
        except OSError as error:
            say(f"{error.strerror}: {error.filename!r}" if error.filename else error)
            return 2
        except (ImportError, TypeError, ValueError) as error:
            say(error)
            return 2
        except KeyboardInterrupt:
            say("stopped")
            return 130
    return 0


def _take(rest: list[str], options: argparse.Namespace) -> None:
    """Takes texts that stand behind an option, where argparse takes no more of them."""
    unknown = [argument for argument in rest if argument.startswith("-")]
    if unknown or (rest and options.command != "explain"):
        raise ValueError(
            f"there is no {(unknown or rest)[0]!r} here; captum-mi {options.command} --help lists"
            " the options"
        )
    if rest:
        options.texts = [*options.texts, *rest]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="captum-mi",
        description="Explain representations with mutual information.",
        epilog="captum-mi COMMAND --help shows a command's options, and examples.",
    )
    parser.add_argument("--version", action="version", version=version("captum_mi"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    width = shutil.get_terminal_size().columns - 2  # as argparse fills what it may fill
    for name, command in COMMANDS.items():
        own = commands.add_parser(
            name,
            help=command.HELP,
            description=textwrap.fill(command.DESCRIPTION, width),
            epilog=command.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(own)
        own.set_defaults(run=command.run, flags=command.FLAGS)
    return parser
