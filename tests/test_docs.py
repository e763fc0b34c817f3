"""The pages hold together: links, commands, imports and the list of errors."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import dfd_edge.errors
from dfd_edge.cli import COMMANDS
from dfd_edge.errors import DfdError

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "examples/README.md"]
    + [ROOT / "samples/README.md"]
)
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


def prose(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^(```+).*?^\1", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "`code`", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    text = re.sub(r"^(```+).*?^\1", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a page in one of the languages."""
    for language, text in re.findall(
        r"^```(\w+)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        if language in languages:
            yield text


@each_page
def test_links_lead_somewhere(page: Path):
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@each_page
def test_python_on_pages_compiles_and_imports_what_exists(page: Path):
    for block in blocks(page, "python"):
        if block.startswith("--8<--"):
            assert (ROOT / block.split('"')[1]).is_file()
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dfd_"):
                module = importlib.import_module(node.module or "")
                assert not [name.name for name in node.names if not hasattr(module, name.name)]


def lines_with_commands(page: Path) -> Iterator[list[str]]:
    """The words of each command on a page; what continues over lines is joined."""
    for block in blocks(page, "console"):
        line = ""
        for part in block.splitlines():
            if line or part.startswith("$ "):
                line += part[2:] if part.startswith(("$ ", "> ")) else part
            if line.endswith("\\"):
                line = line[:-1]
                continue
            try:
                words = shlex.split(line.replace("…", "x"), comments=True)
            except ValueError:  # within quotes, which go on on the next line
                line += "\n"
                continue
            yield words
            line = ""


@pytest.fixture(scope="module")
def commands() -> dict[str, click.Command]:
    """The click command behind each console script."""
    found: dict[str, click.Command] = {}

    def record(self: click.Command, *arguments: object, **options: object) -> None:
        found[name] = self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click.Command, "main", record)
        for name, place in SCRIPTS.items():  # noqa: B007 - `record` reads it
            module, _, function = place.partition(":")
            getattr(importlib.import_module(module), function)()
        for first, place in COMMANDS.items():
            name = f"dfd-edge {first}"
            importlib.import_module(place).main()
    return found


def options_of(command: click.Command) -> set[str]:
    """Every spelling of every option of a command."""
    names = {*command.get_help_option_names(click.Context(command))}
    for parameter in command.params:
        names |= {*parameter.opts, *parameter.secondary_opts}
    return names


@each_page
def test_commands_on_pages_exist_with_their_options(page: Path, commands: dict[str, click.Command]):
    """`dfd-train data check TABLE --x`: the command is there and knows each of its options."""
    for line in lines_with_commands(page):
        command: click.Command | None = None
        for word in line:
            if word in SCRIPTS:
                command = commands[word]
                known = options_of(command)
            elif command is commands["dfd-edge"] and word in COMMANDS:
                command = commands[f"dfd-edge {word}"]
                known = options_of(command)
            elif word in ("|", "||", "&&", "done", ">", "2>") or command is None:
                command = None
            elif isinstance(command, click.Group) and not word.startswith("-"):
                found = command.get_command(click.Context(command), word)
                assert found is not None, f"{line}: no command {word}"
                command = found
                known |= options_of(command)
            elif word.startswith("--"):
                assert word.partition("=")[0] in known, f"{line}: no option {word}"


def test_the_reference_documents_every_public_name():
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs/api").glob("*.md"))
    documented = set(re.findall(r"^::: dfd_edge\.(\w+)$", pages, re.MULTILINE))
    assert "errors" in documented
    rest = [
        getattr(dfd_edge, name)
        for name in dfd_edge.__all__
        if name not in {*documented, "__version__"}
    ]
    assert [name for name in rest if not issubclass(name, DfdError)] == []


def tree(error: type[DfdError]) -> Iterator[type[DfdError]]:
    """An error and all that derive from it."""
    yield error
    for child in error.__subclasses__():
        yield from tree(child)


def test_troubleshooting_lists_the_error_tree():
    page = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE))
    module = dfd_edge.errors.__name__
    own = {e.__name__: str(e.exit_code) for e in tree(DfdError) if e.__module__ == module}
    assert own == listed


def test_troubleshooting_quotes_messages_that_exist():
    page = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    errors, _, surprises = page.partition("\n## No error")
    assert surprises
    quoted = [
        message
        for table in re.findall(r"^\| message \|.*?(?=^$)", errors + "\n", re.MULTILINE | re.DOTALL)
        for message in re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    ]
    assert len(quoted) > 30
    texts = [
        node.value
        for path in (ROOT / "runtime/dfd_edge").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    missing = [message for message in quoted if not any(message in text for text in texts)]
    assert not missing
