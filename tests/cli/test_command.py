"""Records of options become options of a command, in their order, and come back as records."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from spade_faiss.cli.command import command_of
from spade_faiss.cli.console import Console


@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: Annotated[int, typer.Option(min=1, help="How deep.")] = 3
    name: Annotated[str, typer.Option("--called", help="What it is called.")]


@dataclass(frozen=True, kw_only=True)
class Outer:
    first: Annotated[bool, typer.Option("--first")] = False
    inner: Inner
    last: Annotated[list[str] | None, typer.Option("--last")] = None


@pytest.fixture
def app():
    """A command that keeps what it was given."""
    app, app.given = typer.Typer(rich_markup_mode=None, add_completion=False), []  # type: ignore[attr-defined]

    def work(
        console: Console,
        place: Annotated[str, typer.Argument(metavar="PLACE")],
        *,
        outer: Outer,
        after: Annotated[float, typer.Option(help="After all of them.")] = 1.5,
    ) -> None:
        """Do the work."""
        app.given.append((console, place, outer, after))  # type: ignore[attr-defined]
        console.exit(done=place != "nowhere")

    app.command()(command_of(work))
    return app


def test_fields_are_options_with_defaults_of_their_own(app):
    ended = CliRunner().invoke(app, ["here", "--called", "x"])
    assert ended.exit_code == 0, ended.output
    [(console, place, outer, after)] = app.given
    assert isinstance(console, Console) and (place, after) == ("here", 1.5)
    assert outer == Outer(first=False, inner=Inner(depth=3, name="x"), last=None)


def test_values_reach_the_record_they_belong_to(app):
    line = "here --first --depth 7 --called y --last a --last b --after 2"
    assert CliRunner().invoke(app, line.split()).exit_code == 0
    assert app.given[0][1:] == (
        "here",
        Outer(first=True, inner=Inner(depth=7, name="y"), last=["a", "b"]),
        2.0,
    )


def test_help_lists_them_in_the_order_of_the_fields(app):
    text = CliRunner().invoke(app, ["--help"]).output
    places = [text.index(name) for name in ("--first", "--depth", "--called", "--last", "--after")]
    assert places == sorted(places) and "Do the work." in text


def test_a_field_without_default_is_required_and_ranges_are_kept(app):
    runner = CliRunner()
    assert runner.invoke(app, ["here"]).exit_code == 2
    assert runner.invoke(app, ["here", "--called", "x", "--depth", "0"]).exit_code == 2
    assert not app.given


def test_status_2_says_that_nothing_was_done(app):
    assert CliRunner().invoke(app, ["nowhere", "--called", "x"]).exit_code == 2
