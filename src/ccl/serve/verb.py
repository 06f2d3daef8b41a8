"""`ccl serve`: a page on which prompts become clips. The work lies in ccl.serve."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ccl.cli.errors import UsageError
from ccl.cli.parser import (
    Number,
    Parser,
    Whole,
    add_ckpt,
    add_device,
    add_dtype,
    add_loras,
    add_offload,
    add_trust,
    folder_to_write,
    path_of,
    text_of,
)
from ccl.cli.verbs import check_there, say
from ccl.serve.visitors import hostname, is_loopback

HERE = "127.0.0.1"
VARIABLE = "CCL_SERVE_PASSWORD"
MB, GB = 10**6, 10**9


def main(argv: list[str]) -> int:
    parser = Parser(
        "serve",
        "A page in the browser: a prompt, given pictures, sound or film, guidance, two settings side by side; clips "
        "with their curves and records to download. Needs the extra ccl[demo]. Only this machine reaches it, unless "
        "--host says otherwise; then a password is asked for. Ctrl-C ends it.",
        "ccl serve",
        "ccl serve --ckpt runs/joint --port 7861",
        "ccl serve --ckpt models/joint --host 0.0.0.0 --password-file password.txt",
    )
    add_ckpt(parser)
    add_trust(parser)
    add_loras(parser, "put this LoRA on the model")
    parser.add_argument("--host", type=text_of, default=HERE, help="address that is listened on (%(default)s)")
    parser.add_argument("--port", type=Whole(1, 65535), help="of it (a free one from 7860 on)")
    parser.add_argument(
        "--password",
        type=text_of,
        metavar="USER:PASSWORD",
        help="ask for these; others on this machine see command lines, so better in a file or in " + VARIABLE,
    )
    parser.add_argument("--password-file", type=path_of, metavar="FILE", help="a file that holds USER:PASSWORD")
    parser.add_argument(
        "--allow-host",
        type=text_of,
        action="append",
        default=[],
        metavar="NAME",
        help="without a password: a name besides localhost under which the page is served, as that of a proxy before "
        "it; repeatable",
    )
    parser.add_argument("--waiting", type=Whole(1, 10_000), default=32, help="requests that may wait (%(default)s)")
    parser.add_argument("--most-steps", type=Whole(1, 10_000), default=100, help="of a clip (%(default)s)")
    parser.add_argument("--most-seconds", type=Number(0, 600, above=True), default=30.0, help="of a clip (%(default)s)")
    parser.add_argument("--upload", type=Whole(1, 10_000), default=100, help="MB that a file may have (%(default)s)")
    parser.add_argument("--folder", type=folder_to_write, help="of uploads and clips (a new one, removed at the end)")
    parser.add_argument(
        "--keep",
        type=Number(0, 100_000, above=True),
        default=2.0,
        help="GB of that folder; the oldest go (%(default)s)",
    )
    parser.add_argument(
        "--hours", type=Number(0, 100_000, above=True), default=24.0, help="after which a file goes (%(default)s)"
    )
    add_device(parser)
    add_dtype(parser)
    add_offload(parser)
    args = parser.parse(argv)
    password = password_of(args.password, args.password_file, os.environ.get(VARIABLE))
    if password is None and not is_loopback(args.host):
        parser.error(
            f"--host is {args.host}, which others reach, and no password is given; give USER:PASSWORD in a file with "
            f"--password-file, or in {VARIABLE}"
        )
    if wrong := [name for name in args.allow_host if hostname(name) != name.lower()]:
        parser.error(f"--allow-host is {wrong[0]}; here it must be a host's name alone, such as page.example")
    if args.ckpt is not None:
        check_there(args.ckpt)
    from ccl.files import one_writer, own_folder
    from ccl.serve.page import gradio_at, launched

    with ExitStack() as held:
        held.enter_context(term_is_interrupt())
        root = args.folder or held.enter_context(own_folder("ccl-serve-"))
        held.enter_context(one_writer(root, "choose another --folder"))
        gradio_at(root / "uploads")  # what is missing is told before a model is read
        from ccl.cli.parts import device_of, pipeline_of
        from ccl.serve import Bounds, Desk, Folder

        pipe = pipeline_of(args, device_of(args.device), dtype=args.dtype, offload=args.offload)
        folder = Folder(root.resolve(), most=round(args.keep * GB), age=args.hours * 3600)
        desk = Desk(pipe, folder, Bounds(args.most_steps, args.most_seconds))
        where = {"host": args.host, "port": args.port, "allowed": args.allow_host, "password": password}
        url, end = launched(desk, **where, waiting=args.waiting, upload=args.upload * MB)
        held.callback(end)
        say(f"the page is at {url} ; Ctrl-C ends it")
        wait()
    return 0


@contextmanager
def term_is_interrupt() -> Iterator[None]:
    """What systems send to end a process ends it as Ctrl-C does, with its folder removed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def wait() -> None:
    """Until somebody ends it."""
    from threading import Event

    try:
        Event().wait()
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent twice, as by a launcher, it would cut the tidying short
        say("")


def password_of(given: str | None, file: Path | None, variable: str | None) -> tuple[str, str] | None:
    """User and password: of the command line, else of a file, else of the environment; None where there is none.

    Raises:
        UsageError: it is not USER:PASSWORD; the file cannot be read.
    """
    text, where = given, "--password"
    if text is None and file is not None:
        where = f"--password-file {file}"
        try:
            text = file.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{where} cannot be read ({getattr(error, 'strerror', None) or 'it is no UTF-8 text'})"
            ) from error
    elif text is None:
        text, where = variable, VARIABLE
    if text is None:
        return None
    user, colon, password = text.partition(":")
    if not (user.strip() and colon and password):
        raise UsageError(f"{where} must be USER:PASSWORD, neither of them empty")
    return user.strip(), password  # as gradio takes what is typed
