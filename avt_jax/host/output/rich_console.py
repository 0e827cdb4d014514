"""Tables on the terminal, whose cells come from files and labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.segment import Segment

from avt_jax.host.output.terminal import printable_lines


def plain_console(**options: Any) -> Console:
    """A console that takes no text for markup or emoji, and lets no control character through.

    Args:
      options: further ones of Rich's.
    """
    console = Console(highlight=False, markup=False, emoji=False, **options)
    console.push_render_hook(_WithoutControls())
    return console


class _WithoutControls(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Harmless(renderable) for renderable in renderables]


class _Harmless:
    """What a renderable draws, with its own colours, but none that its text asks for."""

    def __init__(self, renderable: RenderableType):
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for text, style, control in console.render(self._renderable, options):
            if control is None:
                text = printable_lines(text)
            yield Segment(text, style, control)
