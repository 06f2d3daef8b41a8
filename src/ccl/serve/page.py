"""The page itself, of gradio's blocks, which is imported here alone."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Event, Thread
from typing import Any

from ccl.cli.errors import one_sentence
from ccl.files import machine_trouble
from ccl.guidance import rules
from ccl.rows import MEDIA
from ccl.serve.asked import GIVEN, OWN, WANTED, Asked, Side
from ccl.serve.desk import Desk, Made
from ccl.serve.visitors import Slowed, hostname, is_loopback

SIDES = 2
EXAMPLE = 'A man with brown hair and a white shirt in front of a yellow wall says "it is cold in the house"'
CLEANED = 60.0  # seconds between two looks at the folder
# The browser is told to take nothing from elsewhere; gradio's own scripts are in part in the page, in part evaluated.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
UNFIT = "what was sent does not fit the page's fields; a file must be uploaded first"
MISSING = "gradio, of which the page is made, is not installed: pip install 'ccl[demo]'"


def gradio_at(folder: os.PathLike[str] | str) -> Any:
    """The gradio package, which keeps what is sent to it in that folder and tells nobody that it runs.

    Raises:
        ImportError: it is not installed.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # which it reads while it is imported, and later
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ImportError(MISSING) from error
    return gradio


def launched(
    desk: Desk,
    *,
    host: str,
    port: int | None,
    waiting: int,
    upload: int,
    allowed: Iterable[str] = (),
    password: tuple[str, str] | None = None,
) -> tuple[str, Callable[[], None]]:
    """Open the page, in threads of this process.

    Args:
        desk: that makes what is asked for.
        host: address that is listened on.
        port: of it; None is a free one from 7860 on.
        waiting: requests that may wait; one more is refused in words.
        upload: bytes that one file may have.
        allowed: names under which the page is served besides those of this machine, where no password is asked for.
        password: user and password that are asked for.

    Returns:
        The page's address, and what ends it.

    Raises:
        ImportError: gradio is not installed.
        OSError: the port is taken.
    """
    desk.folder.make()
    gr = gradio_at(desk.folder.uploads)
    from starlette.middleware import Middleware

    gr.set_static_paths([desk.folder.clips])  # they are served as they lie there
    names = {name.lower() for name in allowed} if password is None and is_loopback(host) else None
    page = blocks(gr, desk)
    page.queue(max_size=waiting, default_concurrency_limit=1, api_open=False)  # nothing goes past it
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none is fetched
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        auth=password,
        max_file_size=upload,
        allowed_paths=[str(desk.folder.clips)],  # its video looks here, not among the static ones
        app_kwargs={"middleware": [Middleware(Guarded, names=names), Middleware(Slowed)]},
        theme=gr.themes.Default(**fonts),
        prevent_thread_lock=True,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        footer_links=[],
        quiet=True,
        show_error=True,
    )
    ended = Event()

    def clean() -> None:
        while not ended.wait(CLEANED):
            with suppress(OSError):  # it is told where a clip cannot be written
                desk.folder.clean()

    Thread(target=clean, daemon=True).start()

    def end() -> None:
        ended.set()
        desk.end()
        page.close(verbose=False)

    return url, end


class Guarded:
    """Around the server: every answer carries POLICY, and one that meets the machine's trouble is a sentence.

    What another site asks for in a visitor's browser is refused but for links: gradio would take it with the visitor's
    cookie, and let that site read the answer. A page that only this machine reaches is served under its names alone: a
    site may point its own name here, and would then be no other.

    Args:
        app: the server.
        names: under which it is served, with those of this machine; None is any.
    """

    def __init__(self, app: Any, names: set[str] | None = None) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.requests import ClientDisconnect
        from starlette.responses import PlainTextResponse

        told = dict(scope.get("headers", ()))
        link = scope.get("method") == "GET" and told.get(b"sec-fetch-mode") == b"navigate"
        if told.get(b"sec-fetch-site") in (b"cross-site", b"same-site") and not link:
            await PlainTextResponse("other sites may only link here", 403)(scope, receive, send)
            return
        name = hostname(told.get(b"host", b"").decode("latin-1"))
        if self.names is not None and scope["type"] != "lifespan" and not (is_loopback(name) or name in self.names):
            said = "the page is not served under that name; `ccl serve --allow-host NAME`, or a password, opens it"
            await PlainTextResponse(said, 403)(scope, receive, send)
            return
        begun = False

        async def sent(message: dict[str, Any]) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        try:
            await self.app(scope, receive, sent)
        except ClientDisconnect:
            return  # nobody is there to be told
        except Exception as error:
            if begun or not machine_trouble(error):
                raise
            await PlainTextResponse(sentence(error), 507)(scope, receive, sent)  # as of a disk without room for a file


def blocks(gr: Any, desk: Desk) -> Any:
    """The page, with one event: `generate`."""
    pipe, bounds = desk.pipe, desk.bounds
    with gr.Blocks(title="CCL", analytics_enabled=False) as page:
        gr.Markdown(
            f"## CCL\n{pipe.grid.width} x {pipe.grid.height} pixels, {pipe.grid.fps:g} a second, "
            f"{pipe.grid.seconds:.2f} s a window. Requests are served one at a time, in the order in which they come."
        )
        with gr.Row():
            with gr.Column():
                prompt = gr.Textbox(
                    label="Prompt", info="spoken words in double quotes", placeholder=EXAMPLE, lines=3, elem_id="prompt"
                )
                if known := pipe.provenance.get("words"):
                    with gr.Accordion(f"The {len(known):,} words that the model knows", open=False):
                        gr.Textbox(", ".join(known), show_label=False, container=False, lines=4, interactive=False)
                wanted = gr.Dropdown(list(WANTED), value=next(iter(WANTED)), label="What is made")
                with gr.Accordion("Given: pictures, sound, a film, a voice, a clip to go on from", open=False):
                    gr.Markdown(
                        "For a whole sound pictures are made, for a whole video sound. A voice is a sound of whoever "
                        "is to speak."
                    )
                    with gr.Row():
                        size = {"height": 150, "min_width": 150}
                        given = [sent(gr, gr.File(label=GIVEN[key], elem_id=key, **size)) for key in MEDIA]
                with gr.Row():
                    negative = gr.Textbox(label="Negative prompt")
                    seconds = gr.Textbox(label="Seconds", placeholder=f"one window; {bounds.seconds:g} at most")
                first = side(gr, desk, "Guidance, steps, seed", OWN)
                both = gr.Checkbox(label="Side by side with other settings", elem_id="both")
                with gr.Column(visible=False) as other:
                    second = side(gr, desk, "Settings of the second clip", another(pipe.guidance.called))
                both.change(lambda on: gr.Column(visible=on), both, other, api_visibility="private", queue=False)
                button = gr.Button("Generate", variant="primary", elem_id="generate")
            with gr.Column(), gr.Row():
                shown = [result(gr, place, visible=not place) for place in range(SIDES)]
        columns = [column for column, _ in shown]
        outputs = [*columns, *(part for _, parts in shown for part in parts)]

        bar = gr.Progress()

        def generate(told: Any = bar, *values: Any) -> Any:  # gradio knows the progress by its default
            prompt, negative, wanted, seconds, both, *rest = values
            media, sides = rest[: len(MEDIA)], rest[len(MEDIA) :]
            each = len(sides) // SIDES
            chosen = tuple(Side(*sides[i * each : (i + 1) * each]) for i in range(SIDES if both else 1))
            given = {key: None if path is None else str(path) for key, path in zip(MEDIA, media, strict=True)}
            asked = Asked(prompt or "", negative or "", given, str(wanted), seconds, chosen)
            try:
                made = desk.make(asked, lambda done, steps: told((done, steps), desc="sampling", unit="steps"))
            except Exception as error:
                raise gr.Error(sentence(error), duration=None, print_exception=False) from None
            padded: list[Made | None] = [*made, *[None] * (SIDES - len(made))]
            seen = [gr.Column(visible=one is not None) for one in padded]
            return [*seen, *(value for one in padded for value in filled(gr, one))]

        inputs = [prompt, negative, wanted, seconds, both, *given, *first, *second]
        seen = {"show_progress_on": [*shown[0][1][:2]], "scroll_to_output": True}  # a film's place, and a sound's
        button.click(generate, inputs, outputs, api_name="generate", concurrency_limit=1, **seen)
    fitting(gr, page)
    return page


def fitting(gr: Any, page: Any) -> None:
    """Tell what fits no field in a sentence: gradio's own names folders of this machine."""
    read = page.preprocess_data

    async def told(*sent: Any, **how: Any) -> Any:
        try:
            return await read(*sent, **how)
        except gr.Error:
            raise
        except Exception as error:
            said = sentence(error) if machine_trouble(error) else UNFIT
            raise gr.Error(said, duration=None, print_exception=False) from None

    page.preprocess_data = told


def sent(gr: Any, field: Any) -> Any:
    """A field whose file is sent: gradio would also fetch one that a request names by its address.

    It also leaves an empty file beside each that is used.
    """
    move = field.async_move_resource_to_block_cache

    async def moved(path: Any) -> Any:
        if "://" in str(path):
            raise gr.Error("a file must be sent, not named by an address", print_exception=False)
        return await move(path)

    field.async_move_resource_to_block_cache = moved
    field.preprocess = lambda file: None if file is None else file.path
    return field


def another(own: str) -> str:
    """A rule that differs from the model's: two clips of the same settings would be one clip twice."""
    return next(name for name in ("text_cfg", "none") if name != own)


def side(gr: Any, desk: Desk, title: str, rule: str) -> list[Any]:
    """The fields of a `Side`, in its order, with a guidance rule chosen."""
    least = {"minimum": 1, "maximum": desk.bounds.steps, "precision": 0, "min_width": 80}
    with gr.Accordion(title):
        with gr.Row():
            guidance = gr.Dropdown([OWN, *rules()], value=rule, label="Guidance", scale=2, min_width=180)
            steps = gr.Number(label="Steps", value=min(desk.pipe.steps, desk.bounds.steps), **least)
            seed = gr.Number(label="Seed", value=0, minimum=0, precision=0, min_width=80)
            for one in (steps, seed):
                one.preprocess = lambda value: value  # `Asked` says in words what is no number, gradio does not
        with gr.Row():
            scales = [
                gr.Textbox(label=label, placeholder="the model's", min_width=110)  # a Number cannot be empty
                for label in ("Scale, pictures", "Scale, sound", "Modal, pictures", "Modal, sound")
            ]
        gr.Markdown("<small>Scale: its strength. Modal: that of the other stream, where it has one (ucg3).</small>")
    return [guidance, *scales, steps, seed]


def result(gr: Any, place: int, *, visible: bool) -> tuple[Any, list[Any]]:
    """A column for a clip: film or sound, its curves, its notes, its files."""
    with gr.Column(visible=visible, min_width=200) as column:
        label = ("Clip", "Second clip")[place]
        parts = [
            gr.Video(label=label, interactive=False, autoplay=True, elem_id=f"clip{place}", buttons=[]),
            gr.Audio(label="Sound", interactive=False, visible=False, elem_id=f"sound{place}", buttons=[]),
            gr.HTML(elem_id=f"curves{place}"),
            gr.Markdown(elem_id=f"notes{place}"),
            gr.File(label="Download: the clip and its record", interactive=False, elem_id=f"files{place}"),
        ]
    return column, parts


def filled(gr: Any, made: Made | None) -> list[Any]:
    """The values of a column's parts."""
    if made is None:
        return [None, None, "", "", None]
    path, sound = str(made.path), made.path.suffix == ".wav"
    notes = "\n".join(f"- {note}" for note in made.notes)
    return [
        gr.Video(value=None if sound else path, visible=not sound),
        gr.Audio(value=path if sound else None, visible=sound),
        made.drawing,
        notes,
        [path, str(made.record)],
    ]


def sentence(error: Exception) -> str:
    """What the page says of an error, without names of files here; the server's terminal says more.

    Of the machine's trouble in a sentence, of what nobody foresaw in full.
    """
    if isinstance(error, ValueError):
        return one_sentence(error)
    if machine_trouble(error):
        sys.stderr.write(f"ccl: {one_sentence(error)}\n")
    else:
        traceback.print_exception(error, file=sys.stderr)
    why = getattr(error, "strerror", None) or type(error).__name__
    return f"it could not be done ({why}); the server's terminal says more"
