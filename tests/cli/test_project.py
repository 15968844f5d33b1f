"""`init` and `config`, as a person types them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from newsletter.config import load
from newsletter.config.env import SECRETS
from tests.support.publisher import A_KEY, Publisher, publisher

if TYPE_CHECKING:
    from pathlib import Path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# init


def test_init_makes_a_folder_that_can_be_used_at_once(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    done = Publisher(tmp_path).newsletter("init", str(root))
    settings = load(root, {})
    settings.require_keys()
    assert settings.warnings == ()
    assert settings.sending.mode == "off"
    assert ".env" in (root / ".gitignore").read_text().split()
    assert settings.secret_keys[2:] not in done.stdout + done.stderr
    assert "newsletter preview" in done.stdout
    Publisher(root).newsletter("config")


def test_init_never_overwrites(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    before = snapshot(made.root)
    done = made.newsletter("init", str(made.root), check=False)
    assert done.returncode == 5
    assert "newsletter.toml" in done.stderr
    assert snapshot(made.root) == before


def test_init_keys_makes_only_what_is_missing(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    assert "nothing was changed" in made.newsletter("init", "--keys").stdout
    (made.root / ".env").unlink()
    done = made.newsletter("init", "--keys")
    assert "NEWSLETTER_SECRET_KEYS and NEWSLETTER_ADDRESS_KEY" in done.stdout
    load(made.root, {}).require_keys()
    assert load(made.root, {}).secret_keys[2:] not in done.stdout + done.stderr


# config


def test_config_shows_every_value_and_its_origin(tmp_path: Path) -> None:
    made = publisher(tmp_path, '[sending]\nretry = ["90s"]\n', {"SMTP_PASSWORD": "quite-secret"})
    shown = made.newsletter("config").stdout
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert rows["sending.retry"] == ["sending.retry", "90s", "newsletter.toml"]
    assert rows["sending.mode"] == ["sending.mode", "off", "default"]
    assert rows["SMTP_PASSWORD"] == ["SMTP_PASSWORD", "set", "environment"]
    assert rows["NEWSLETTER_ADDRESS_KEY"][-1] == ".env"


def test_config_for_scripts_holds_the_same(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    shown = json.loads(made.newsletter("config", "--json").stdout)
    assert shown["newsletter.editors"] == {"value": ["editor@example.org"], "from": "default"}
    assert shown["smtp.port"] == {"value": 25, "from": "default"}
    assert set(SECRETS) <= set(shown)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_config_never_prints_any_part_of_a_secret(tmp_path: Path, form: tuple[str, ...]) -> None:
    hidden = {
        "SENDGRID_API_KEY": "SG.quite-secret",
        "SMTP_PASSWORD": "correct horse",
        "DATABASE_URL": "sqlite:////secret/place?password=sesame",
    }
    done = publisher(tmp_path, environ=hidden).newsletter("config", *form)
    for part in (A_KEY, A_KEY[:6], "quite", "horse", "sesame"):
        assert part not in done.stdout + done.stderr


def test_config_tells_every_problem_and_ends_with_2(tmp_path: Path) -> None:
    made = publisher(tmp_path, '[sending]\nmode = "on"\nconnections = 0\n')
    done = made.newsletter("config", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: The configuration has 2 problems:\n  newsletter.toml:")
