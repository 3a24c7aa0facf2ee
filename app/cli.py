"""The command line: `sottovoce COMMAND`. What each command takes is told here; what it does is in app/commands_*.py.

    0    done (warnings on standard error)
    1    failed: one line on standard error says what to do next, and no OUT is left
    2    wrong use
    130  after Ctrl-C: what was done is finalised and playable

Commands are imported when they are run, so that `--help` is there at once.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

from app import console

ProviderName = Literal["auto", "cpu", "cuda", "tensorrt"]
CaptionFormat = Literal["srt", "vtt", "txt", "json"]
Tap = Literal["raw", "enhanced", "tokens"]
TAP_HELP = "What captions are made from: the sound, raw or enhanced, or the voice's tokens."
SettingsAction = Literal["list", "get", "set", "reset", "path", "preset", "save-preset", "delete-preset"]

BACKGROUND_HELP = "What becomes of the background: keep, drop, a gain in dB from -60 to 0, or swap:SCENE[@DB]."
BackgroundOption = Annotated[str, typer.Option("--background", metavar="WHAT", help=BACKGROUND_HELP)]
CTL_HELP = "background WHAT, scene NAME, bypass on|off, mute on|off, level on|off, input ID, output ID, "
CTL_HELP += "resync, show, or status."
SETTINGS_HELP = "list, get NAME, set NAME VALUE, reset [NAME], path, preset [NAME], save-preset NAME of what is set "
SETTINGS_HELP += "now, or delete-preset NAME."
QuantizersOption = Annotated[
    int | None, typer.Option("--quantizers", metavar="N", help="Keep the first N stages of tokens only.")
]
ProviderOption = Annotated[ProviderName, typer.Option("--provider", help="Where the networks run.")]
ChosenProvider = Annotated[
    ProviderName | None, typer.Option("--provider", help="Where the networks run; else as the settings say.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace OUT when it exists.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LANGUAGE_OPTION = typer.Option(
    "--language", metavar="XX", help="What is spoken, as a two-letter code; auto tells it from the sound."
)
LanguageOption = Annotated[str | None, LANGUAGE_OPTION]
WHISPER_OPTION = typer.Option("--whisper", metavar="SIZE", help="The Whisper of captions; see sottovoce models.")
WhisperOption = Annotated[str | None, WHISPER_OPTION]
AdapterOption = Annotated[
    bool, typer.Option("--adapter", help="To try it: words from the quantiser's codes, more of them wrong.")
]
InFile = Annotated[Path, typer.Argument(metavar="IN", show_default=False)]
OutFile = Annotated[Path, typer.Argument(metavar="OUT", show_default=False)]

cli = typer.Typer(
    name="sottovoce",
    help="Hear the voice, keep or drop the world around it, and read what is said.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cli.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(version_of("sottovoce"))
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(console.WRONG_USE)


@cli.command()
def gui(
    demo: Annotated[bool, typer.Option("--demo", help="Play the shipped recording instead of a microphone.")] = False,
    quit_after: Annotated[
        float | None, typer.Option("--quit-after", metavar="S", help="Close after S seconds.")
    ] = None,
    screenshot: Annotated[
        Path | None, typer.Option("--screenshot", metavar="FILE.png", help="Save the window before closing.")
    ] = None,
    install_entry: Annotated[
        bool, typer.Option("--install-desktop-entry", help="Put Sottovoce among the desktop's programs, and stop.")
    ] = False,
    remove_entry: Annotated[bool, typer.Option("--remove-desktop-entry", help="Take it away again, and stop.")] = False,
    provider: ChosenProvider = None,
) -> None:
    """Open the window."""
    if install_entry or remove_entry:
        from app.desktop import desktop_entry

        raise typer.Exit(desktop_entry(install_entry, remove_entry))
    from app.commands_live import gui as run

    raise typer.Exit(run(demo, quit_after, screenshot, provider))


@cli.command()
def live(
    input_id: Annotated[
        str | None, typer.Option("--input", metavar="ID", help="The microphone; see sottovoce devices.")
    ] = None,
    output_id: Annotated[str | None, typer.Option("--output", metavar="ID", help="Where the clean sound goes.")] = None,
    virtual_mic: Annotated[
        bool | None, typer.Option("--virtual-mic/--no-virtual-mic", help="Offer the clean sound as a microphone.")
    ] = None,
    background: Annotated[str | None, typer.Option("--background", metavar="WHAT", help=BACKGROUND_HELP)] = None,
    level: Annotated[bool | None, typer.Option("--level/--no-level", help="Bring the voice to a steady level.")] = None,
    captions: Annotated[
        bool | None, typer.Option("--captions/--no-captions", help="Print what is said on standard output.")
    ] = None,
    also: Annotated[
        str | None,
        typer.Option("--also", metavar="ID", help='Caption this, too; "speakers" is what they play, "none" nothing.'),
    ] = None,
    language: LanguageOption = None,
    record: Annotated[Path | None, typer.Option("--record", metavar="DIR", help="Record into this folder.")] = None,
    recording: Annotated[
        bool, typer.Option("--recording", help="Record into the folder that the settings name.")
    ] = False,
    seconds: Annotated[float | None, typer.Option("--seconds", metavar="N", help="Stop after N seconds.")] = None,
    provider: ChosenProvider = None,
    whisper: WhisperOption = None,
    tap: Annotated[Tap, typer.Option("--from", help=TAP_HELP)] = "enhanced",
    adapter: AdapterOption = False,
) -> None:
    """Clean a microphone as it goes, until Ctrl-C. What no option says is as you chose it in the settings."""
    from app.commands_live import alone, live_run, load_ahead

    with alone() as control:
        load_ahead(provider)
        from app.settings_use import LiveFlags

        ends, words = (input_id, output_id, virtual_mic), (captions, also, language)
        flags = LiveFlags(*ends, background, level, *words, record, recording, seconds, provider, whisper, tap, adapter)
        status = live_run(flags.request(), control)
    raise typer.Exit(status)


@cli.command(context_settings={"ignore_unknown_options": True})  # a gain such as -12 is a value
def ctl(
    do: Annotated[str, typer.Argument(metavar="COMMAND", show_default=False, help=CTL_HELP)],
    value: Annotated[str | None, typer.Argument(metavar="[VALUE]", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Steer the Sottovoce that is running, with or without a window."""
    from app.commands_live import ctl as run

    raise typer.Exit(run(do, value, as_json))


@cli.command()
def serve(
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0 takes a free one.")] = 8737,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDR", help="0.0.0.0 lets others on the network read along.")
    ] = "127.0.0.1",
    new_link: Annotated[bool, typer.Option("--new-link", help="Make a new address; the old one is void.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the captions of what is running on a page, for OBS or a second screen, until Ctrl-C."""
    from app.commands_serve import serve as run

    raise typer.Exit(run(host, port, new_link, as_json))


@cli.command()
def demo(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", show_default=False, help="A recording of your own.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the results go.")] = Path("sottovoce-out"),
    seconds: Annotated[float | None, typer.Option("--seconds", metavar="N", help="Only the first N seconds.")] = None,
    captions: Annotated[bool, typer.Option("--captions/--no-captions", help="Caption the speech.")] = True,
    background: BackgroundOption = "drop",
    provider: ProviderOption = "auto",
) -> None:
    """Stream a noisy recording through the live engine and draw what happened."""
    from app.demo import DemoRequest, run_demo

    raise typer.Exit(run_demo(DemoRequest(file, out, seconds, captions, background, provider)))


@cli.command()
def enhance(
    source: InFile,
    out: OutFile,
    background: BackgroundOption = "drop",
    tokens_only: Annotated[bool, typer.Option("--tokens-only", help="Only what the tokens hold is heard.")] = False,
    quantizers: QuantizersOption = None,
    no_refiner: Annotated[bool, typer.Option("--no-refiner", help="Leave the refiner out.")] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    provider: ProviderOption = "auto",
) -> None:
    """Clean a recording: IN's rate, channels and length are kept."""
    from app.commands_files import EnhanceRequest
    from app.commands_files import enhance as run

    request = EnhanceRequest(source, out, background, tokens_only, quantizers, not no_refiner, force, as_json, provider)
    raise typer.Exit(run(request))


@cli.command()
def caption(
    source: InFile,
    out: Annotated[Path | None, typer.Argument(metavar="[OUT]", show_default=False)] = None,
    form: Annotated[
        CaptionFormat | None, typer.Option("--format", help="Else OUT's extension says, or srt.", show_default=False)
    ] = None,
    language: Annotated[str, LANGUAGE_OPTION] = "en",
    tap: Annotated[Tap, typer.Option("--from", help=TAP_HELP)] = "enhanced",
    whisper: Annotated[str, WHISPER_OPTION] = "base",
    adapter: AdapterOption = False,
    force: ForceOption = False,
    provider: ProviderOption = "auto",
) -> None:
    """Write what is said in a recording, with times."""
    from app.commands_files import CaptionRequest
    from app.commands_files import caption as run
    from app.settings_use import spoken

    request = CaptionRequest(source, out, form, spoken(language), tap, force, provider, whisper, adapter)
    raise typer.Exit(run(request))


@cli.command()
def residue(
    source: InFile,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="OUT.png", help="Draw it, too.", show_default=False)
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    provider: ProviderOption = "auto",
) -> None:
    """Tell which noise is in a recording, from what the recogniser's tokens leave over."""
    from app.commands_noise import NoiseRequest
    from app.commands_noise import residue as run

    raise typer.Exit(run(NoiseRequest(source, report, force, as_json, provider)))


@cli.command()
def encode(
    source: InFile,
    out: Annotated[Path, typer.Argument(metavar="OUT.svt", show_default=False)],
    quantizers: QuantizersOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    provider: ProviderOption = "auto",
) -> None:
    """Write a recording as tokens, speech and background apart."""
    from app.commands_files import encode as run

    raise typer.Exit(run(source, out, quantizers, force, as_json, provider))


@cli.command()
def decode(
    source: Annotated[Path, typer.Argument(metavar="IN.svt", show_default=False)],
    out: OutFile,
    background: BackgroundOption = "drop",
    force: ForceOption = False,
    as_json: JsonOption = False,
    provider: ProviderOption = "auto",
) -> None:
    """Turn tokens back into sound."""
    from app.commands_files import decode as run

    raise typer.Exit(run(source, out, background, force, as_json, provider))


@cli.command()
def devices(as_json: JsonOption = False) -> None:
    """List microphones and outputs."""
    from app.commands_live import devices as run

    raise typer.Exit(run(as_json))


@cli.command(context_settings={"ignore_unknown_options": True})  # a gain such as -12 is a value
def settings(
    action: Annotated[SettingsAction, typer.Argument(help=SETTINGS_HELP)] = "list",
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", show_default=False)] = None,
    value: Annotated[str | None, typer.Argument(metavar="[VALUE]", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """List, get, set or reset what Sottovoce remembers, tell where it lies, or take or keep a preset."""
    from app.commands_settings import settings as run

    raise typer.Exit(run(action, name, value, as_json))


@cli.command()
def models(
    action: Annotated[Literal["list", "get", "verify", "import"], typer.Argument()] = "list",
    what: Annotated[str | None, typer.Argument(metavar="[NAME|FILE]", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models, get NAME's weights, verify what is there, or import FILE."""
    from app.commands_models import models as run

    raise typer.Exit(run(action, what, as_json))


@cli.command()
def bench(
    what: Annotated[
        Literal["codec", "live", "window", "overload", "idle", "start", "soak", "memory"], typer.Argument()
    ] = "codec",
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="N", help="Length of the sound measured with.")
    ] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", metavar="N", help="Simulated length of a soak.")] = None,
    block_ms: Annotated[
        float | None, typer.Option("--block-ms", metavar="N", help="What the devices of `live` move at once.")
    ] = None,
    as_json: JsonOption = False,
    provider: ProviderOption = "cpu",
) -> None:
    """Measure speed, delay, memory, the window, rest, start, and how overload and many hours are borne."""
    from app.bench import bench as run

    raise typer.Exit(run(what, seconds, as_json, provider, minutes, block_ms))


@cli.command()
def doctor(
    as_json: JsonOption = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write it to FILE too, with the log, for a bug report."),
    ] = None,
) -> None:
    """Tell what is installed, loaded and found, and what to do about what is not."""
    from app.doctor import doctor as run

    raise typer.Exit(run(as_json, report))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's) and give its exit status; tells failures on standard error."""
    console.quiet_libraries()
    command = typer.main.get_command(cli)
    try:
        status = command.main(args=arguments, prog_name="sottovoce", standalone_mode=False)
    except typer.exceptions.TyperException as error:
        message = error.format_message().rstrip(".").replace("Value error, ", "")
        console.say(f"{message[:1].lower()}{message[1:]}; see {_command_of(error)} --help")
        return error.exit_code
    except _engine_errors() as error:  # looked up only when something was raised
        console.say(error)
        return _status_of(error)
    except KeyboardInterrupt:
        console.say("stopped")
        return console.INTERRUPTED
    except MemoryError:
        console.say("out of memory; close other programs and try again")
        return console.FAILED
    except OSError as error:
        return _tell_os_error(error)
    return status if isinstance(status, int) else console.DONE


def _engine_errors() -> type[Exception]:
    """What the engine raises; imported late, because the engine's types bring numpy with them."""
    from engine.types import SottovoceError

    return SottovoceError


def _status_of(error: Exception) -> int:
    from engine.types import UsageError

    return console.WRONG_USE if isinstance(error, UsageError) else console.FAILED


def _command_of(error: typer.exceptions.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "sottovoce"


def _tell_os_error(error: OSError) -> int:
    if error.errno == errno.EPIPE:  # whoever read our output has gone, as `head` does; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return console.FAILED
    advice = "make room on the disk" if error.errno == errno.ENOSPC else "check the name and its permissions"
    console.say(f"{error.filename or 'a file'}: {error.strerror or error}; {advice}")
    return console.FAILED


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """The program `sottovoce`."""
    sys.excepthook = console.tell_of_bugs
    for number in console.STOPS:  # being told to stop is Ctrl-C, however it is told
        signal.signal(number, _stop)
    sys.exit(run())


if __name__ == "__main__":
    main()
