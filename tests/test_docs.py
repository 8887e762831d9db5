"""What the documentation shows is executed: docstring examples, the README's code, its commands and links.

An HTML comment right before a fenced block of the README says how the block is treated: ``<!-- model -->`` for
code that needs a real model, ``<!-- no-run: reason -->`` for code that is only compiled.
"""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted(ROOT.glob("*.md"))
PACKAGES = ("tale_core", "tale_langchain", "tale_llamaindex")
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]

FENCE = re.compile(
    r"(?:^<!--\s*(?P<mark>model|no-run:[^>]*?)\s*-->\s*\n)?^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```\s*$",
    re.MULTILINE | re.DOTALL,
)
SHELLS = {"bash", "console", "sh", "shell", "text"}
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


class Block(NamedTuple):
    """One fenced block of a page."""

    language: str
    code: str
    mark: str
    line: int

    def run(self, namespace: dict[str, Any]) -> None:
        exec(self.compiled(), namespace)  # noqa: S102  # our own README

    def compiled(self) -> Any:
        """Compile the code so that tracebacks show the README's own lines."""
        return compile("\n" * (self.line - 1) + self.code, str(README), "exec")


def blocks(text: str) -> list[Block]:
    return [
        Block(
            language=found["language"],
            code=found["code"],
            mark=(found["mark"] or "").partition(":")[0],
            line=text[: found.start("code")].count("\n") + 1,
        )
        for found in FENCE.finditer(text)
    ]


def blocks_of(page: Path, *languages: str) -> list[Block]:
    return [block for block in blocks(page.read_text(encoding="utf-8")) if block.language in languages]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    module = importlib.import_module(name)
    failed, attempted = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert attempted
    assert not failed, "see the captured output for what differs"


# the README's code


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Let the README's code run in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return {"__name__": "readme"}


def test_every_python_block_of_the_readme_compiles() -> None:
    for block in blocks_of(README, "python"):
        block.compiled()


def test_the_readmes_code_runs_in_order(namespace: dict[str, Any]) -> None:
    for block in blocks_of(README, "python"):
        if not block.mark:
            block.run(namespace)


@pytest.mark.model
@pytest.mark.usefixtures("small_model")
def test_the_readmes_code_for_a_real_model_runs_in_order(
    namespace: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tale_core.local import PATH_VARIABLE, SMALL_MODEL, find_weights

    monkeypatch.setenv(PATH_VARIABLE, str(find_weights(SMALL_MODEL).path))
    for block in blocks_of(README, "python"):
        if block.mark != "no-run":
            block.run(namespace)


# commands


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """Yield the arguments of every call of a program in a page's shell blocks."""
    for block in blocks_of(page, *SHELLS):
        for line in block.code.replace("\\\n", " ").splitlines():
            shown = line.removeprefix("$ ")
            if shown.startswith(f"{program} "):
                yield shlex.split(shown, comments=True)[1:]


def unknown_parts(arguments: list[str]) -> list[str]:
    """Return what a call of ``tale`` names that the command line does not know."""
    from typer.main import get_command

    from tale_lab.cli.app import app, load

    command: Any = get_command(app)
    unknown = []
    for word in arguments:
        if word in {"|", ">", ">>", "&&", ";"}:
            break
        if word.startswith("-"):
            known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
            if word.partition("=")[0] not in known | {"--help"}:
                unknown.append(word)
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return [*unknown, word]
            command = load(word)
    return unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tale_commands_shown_exist_with_their_options(page: Path) -> None:
    shown = list(commands(page, "tale"))
    assert {shlex.join(one): unknown_parts(one) for one in shown if unknown_parts(one)} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_make_targets_shown_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for call in commands(page, "make") for word in call if "=" not in word}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_extras_shown_exist(page: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"tale-reasoning\[([\w,-]+)\]", page.read_text(encoding="utf-8"))
    assert {extra for one in named for extra in one.split(",")} <= set(project["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []


# the tools of this file


def test_blocks_are_found_with_their_marks_and_lines() -> None:
    page = (
        "# T\n\n```python\na = 1\n```\n\n<!-- model -->\n```python\nb = a\n```\n"
        "<!-- no-run: key -->\n\n```bash\nx\n```\n"
    )
    assert blocks(page) == [
        Block("python", "a = 1\n", "", 4),
        Block("python", "b = a\n", "model", 9),
        Block("bash", "x\n", "no-run", 14),
    ]


def test_a_command_or_option_that_does_not_exist_is_seen() -> None:
    assert unknown_parts(["ask", "How much?", "--compare"]) == []
    assert unknown_parts(["ask", "How much?", "--no-such-option"]) == ["--no-such-option"]
    assert unknown_parts(["no-such-command"]) == ["no-such-command"]
