"""What the README and the docs point at is there: files, commands, options and tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from run_pipeline import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?:", link):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_told_exist_with_their_options(page: Path) -> None:
    for line in re.findall(r"run_pipeline\.py ([^`\n]+)", page.read_text()):
        words = line.partition("#")[0].split()
        name = "run" if words[0].startswith("-") else words[0]
        if name == "COMMAND" or name.startswith("…"):
            continue
        assert name in main.commands, f"{page.name}: {line}"
        command = main.commands[name]
        alone = len(words) == 1 or words[1].startswith("-")  # a group may do something by itself
        if isinstance(command, click.Group) and not (command.invoke_without_command and alone):
            assert len(words) > 1 and words[1] in command.commands, f"{page.name}: {line}"
            command = command.commands[words[1]]
        known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        free = any(isinstance(parameter, click.Argument) and parameter.nargs == -1 for parameter in command.params)
        for word in words:
            if word.startswith("--") and word != "--help" and not free:
                assert word.partition("=")[0] in known, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_tests_that_are_told_exist(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"\b(?:model|simulators|stream|tests)/[\w/]+(?:\.py|/(?=`))", text):
        assert (ROOT / path).exists(), f"{page.name}: {path}"
    for path, words in re.findall(r"(tests/[\w/]+\.py) -k '?([\w ]+)", text):
        names = re.findall(r"def (test_\w+)", (ROOT / path).read_text())
        for word in re.split(r" (?:or|and) ", words.strip()):
            assert any(word in name for name in names), f"{page.name}: {path} -k {word}"


def test_a_skipped_test_fails_where_its_means_are_required() -> None:
    chosen = [sys.executable, "-m", "pytest", "-q", "tests/test_end_to_end.py", "-k", "any_speed"]
    environment = {name: value for name, value in os.environ.items() if name not in {"RECORDINGS", "WARDBEAT_REQUIRE"}}
    for required, code, said in (("", 0, "1 skipped"), ("recordings", 1, "but WARDBEAT_REQUIRE wants recordings")):
        done = subprocess.run(
            chosen,
            cwd=ROOT,
            env=environment | {"WARDBEAT_REQUIRE": required},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout
        assert said in done.stdout
