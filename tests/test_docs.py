"""The documentation tells the truth: what it names is there, and what is there is named."""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from markdown_it import MarkdownIt

from newsletter import model
from newsletter.cli.main import app, main
from newsletter.config.sections import Sections
from newsletter.content import shape, values
from newsletter.render import FILTERS, Palette, Theme
from tests import make_docs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from markdown_it.token import Token

ROOT = make_docs.ROOT
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RECORDS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
CODE = sorted(
    [
        *(ROOT / "newsletter").rglob("*.py"),
        *(ROOT / "tests").rglob("*.py"),
        *ROOT.glob("*.toml"),
        ROOT / "Makefile",
    ]
)
WORDS = [
    *("issue", "lead", "teaser", "closing notes", "preheader", "masthead", "colophon", "email", "address"),
    *(
        "subscriber",
        "list",
        "subscription",
        "suppression",
        "campaign",
        "kind",
        "rehearsal",
        "period",
        "delivery",
    ),
    *(
        "transport",
        "provider",
        "accepted",
        "refused",
        "unknown",
        "delivered",
        "deferred",
        "bounced",
        "complained",
    ),
    *("merge tag", "proof", "ledger", "freeze", "finding", "waiver", "lane", "window"),
]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name)


@cache
def tokens(page: Path) -> tuple[Token, ...]:
    """Blocks and what stands in them, in order."""
    blocks = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    return tuple(token for block in blocks for token in (block, *(block.children or ())))


def text(relative: str) -> str:
    return (ROOT / relative).read_text(encoding="utf-8")


# What is generated


def test_generated_parts_are_fresh() -> None:
    for page, fresh in make_docs.pages().items():
        assert page.read_text(encoding="utf-8") == fresh, f"{name(page)} is stale: python -m tests.make_docs"


def test_every_generated_part_stands_in_a_page() -> None:
    written = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert {part for _, part, _ in make_docs.PART.findall(written)} == set(make_docs.PARTS)


# Links


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    found: list[str] = []
    for block, inline in zip(tokens(page), tokens(page)[1:], strict=False):
        if block.type == "heading_open":
            words = "".join(child.content for child in inline.children or ())
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


def links(page: Path) -> Iterator[str]:
    for token in tokens(page):
        if target := token.attrs.get("href") or token.attrs.get("src"):
            yield str(target)


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            assert target.startswith(("https://", "mailto:")), target
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(file), target


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    assert set((ROOT / "docs").glob("*.md")) - {index, ROOT / "docs" / "proof.md"} <= linked


def test_code_names_only_pages_that_exist() -> None:
    written_later = {"docs/proof.md"}  # by `make prove`
    for file in CODE:
        named = set(re.findall(r"docs/[\w/.-]+\.md", file.read_text(encoding="utf-8")))
        assert {page for page in named - written_later if not (ROOT / page).exists()} == set(), name(file)


def test_nothing_refers_to_a_design_that_is_not_in_the_repository() -> None:
    for file in {*PAGES, *CODE} - {Path(__file__)}:
        assert not re.search(r"\bDESIGN\b", file.read_text(encoding="utf-8")), name(file)


# Commands and examples


def code(page: Path) -> Iterator[str]:
    """Lines of code blocks, and code between words."""
    for token in tokens(page):
        if token.type in {"fence", "code_block"}:
            yield from token.content.replace("\\\n", "").splitlines()
        elif token.type == "code_inline":
            yield token.content


def parse(command: click.Command, words: list[str]) -> None:
    """Raises click's UsageError or AssertionError for what the command would not understand. Runs nothing."""
    context = click.Context(command)
    given, rest, _ = command.make_parser(context).parse_args(list(words))
    if isinstance(command, click.Group):
        if rest:
            inner = command.get_command(context, rest[0])
            assert inner is not None, f"no command {rest[0]}"
            parse(inner, rest[1:])
        return
    assert rest == [], f"too much: {rest}"
    missing = [
        one.name
        for one in command.params
        if one.required and not isinstance(given.get(one.name), str | list | tuple)
    ]
    assert not missing or not words, f"missing: {missing}"  # without any words, the command is only named


@each_page
def test_every_newsletter_command_is_one(page: Path) -> None:
    for line in code(page):
        said = line.strip().removeprefix("$ ")
        if not re.match(r"newsletter( |$)", said) or "OPTIONS" in said:
            continue
        words = shlex.split(re.split(r" [|>&;]+ ", said)[0], comments=True)[1:]
        try:
            parse(app, words)
        except (click.UsageError, AssertionError) as error:
            pytest.fail(f"{said}: {error}")


def test_the_quickstart_works_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line but the preview's, which does not end, and the installation's."""
    monkeypatch.chdir(tmp_path)
    blocks = [token for token in tokens(ROOT / "docs" / "quickstart.md") if token.type == "fence"]
    people = next(block.content for block in blocks if block.content.startswith("email,"))
    lines = [line for block in blocks if block.info == "sh" for line in block.content.splitlines()]
    for line in lines:
        first, *words = shlex.split(line)
        if first == "cd":
            monkeypatch.chdir(words[0])
            Path("people.csv").write_text(people, encoding="utf-8")
            made = next(folder.name for folder in Path("issues").iterdir() if folder.is_dir())
        elif first == "newsletter" and words != ["preview"]:
            given = [made if word == "2026-12" else word for word in words]
            assert main(given) == 0, line


@each_page
def test_every_make_target_is_one(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    named = [re.match(r"make ([a-z]+)", line.strip()) for line in code(page)]
    assert {match[1] for match in named if match} <= targets


def test_the_readme_names_the_two_commands() -> None:
    assert {"make demo", "make test"} <= {line.strip() for line in code(ROOT / "README.md")}


def examples(file: str) -> list[Any]:
    return [
        pytest.param(tomllib.loads(token.content), id=f"{name(page)}:{token.map[0] + 1}")
        for page in PAGES
        for token in tokens(page)
        if token.type == "fence" and token.info == f"toml {file}" and token.map
    ]


def test_every_toml_example_says_which_file_it_is() -> None:
    infos = {token.info for page in PAGES for token in tokens(page) if token.info.startswith("toml")}
    assert infos == {"toml newsletter.toml", "toml issue.toml"}


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: merged(base[key], over[key]) for key in base.keys() & over.keys() if isinstance(over[key], dict)
    }
    return {**base, **over, **both}


@pytest.mark.parametrize("example", examples("newsletter.toml"))
def test_an_example_of_newsletter_toml_is_accepted(example: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "logo.png").touch()
    whole = merged(tomllib.loads(text("newsletter.toml")), example)
    Sections.model_validate(whole, context={"project": tmp_path})


@pytest.mark.parametrize("example", examples("issue.toml"))
def test_an_example_of_issue_toml_is_accepted(example: dict[str, Any]) -> None:
    whole = merged(tomllib.loads(text("issues/2026-12/issue.toml")), example)
    assert isinstance(shape.read(whole), shape.IssueTable)
    assert list(values.faults(whole, "2026-12", values.Tags(()))) == []


# What must be named


def unnamed(words: Iterable[str], page: str) -> list[str]:
    """The words that stand in no piece of code of the page."""
    known = {word for piece in code(ROOT / page) for word in re.findall(r"\w+", piece)}
    return [word for word in words if word not in known]


def test_every_state_and_kind_is_explained() -> None:
    states = [*model.DeliveryState, *model.CampaignState, *model.Kind]
    explained = re.findall(r"^\| `(\w+)` \|", text("docs/sending.md"), re.MULTILINE)
    assert set(states) <= set(explained)


def test_everything_that_a_template_sees_is_named() -> None:
    seen = (
        model.Issue,
        model.Lead,
        model.Source,
        model.Section,
        model.Teaser,
        model.Picture,
        model.Publication,
        Theme,
        Palette,
    )
    assert unnamed((field.name for kind in seen for field in fields(kind)), "docs/templates.md") == []
    assert unnamed(FILTERS, "docs/templates.md") == []


def test_the_glossary_has_every_word() -> None:
    page = text("docs/glossary.md")
    states = [*model.SubscriptionState, *model.CampaignState, *model.Kind, *model.DeliveryState]
    assert [word for word in WORDS if f"**{word}**" not in page] == []
    assert unnamed(states, "docs/glossary.md") == []


def test_decisions_are_numbered_without_a_gap_and_listed_in_order() -> None:
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))
    listed = re.findall(r"^(\d+)\. \[(.+)\]\((.+)\)$", text("docs/decisions/README.md"), re.MULTILINE)
    titles = [record.read_text(encoding="utf-8").partition("\n")[0] for record in RECORDS]
    assert [(f"# {number}. {title}", file) for number, title, file in listed] == [
        (title, record.name) for title, record in zip(titles, RECORDS, strict=True)
    ]


@pytest.mark.parametrize("record", RECORDS, ids=name)
def test_a_decision_has_its_context_and_its_price(record: Path) -> None:
    assert re.findall(r"^## (.+)$", record.read_text(encoding="utf-8"), re.MULTILINE) == [
        "Context",
        "Decision",
        "Price",
    ]
