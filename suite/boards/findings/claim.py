"""Published claims, each with the test that decides it here. The test's hash is in the file: who changes a test after
its runs must change the hash too, which a review sees.
"""

from __future__ import annotations

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from suite.config.identity import digest
from suite.errors import UserError

#: Of a folder of published records.
NAME = "claims.toml"


class Claim(BaseModel):
    """A claim, and its test.

    id: unique, of lower-case words with hyphens.
    claim: what was published, in one sentence.
    source: the paper.
    published: at which scale it was shown there.
    written: when the test was written down.
    tasks: on whose boards it is tested, each by itself.
    one, other: rows of these boards, by the mixer and the options given for it.
    expects: that the first row is better, or that both are equivalent.
    scale: of the boards.
    sha256: of the test; see `test_hash`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)
    claim: str = Field(min_length=1, max_length=400)
    source: str = Field(min_length=1, max_length=200)
    published: str = Field(min_length=1, max_length=200)
    written: datetime
    tasks: tuple[str, ...] = Field(min_length=1)
    one: str
    other: str
    expects: Literal["better", "equivalent"] = "better"
    scale: str = "board"
    sha256: str

    @property
    def test_hash(self) -> str:
        """The digest of all that decides the verdict: tasks, scale, both rows and what is expected of them."""
        return digest([sorted(self.tasks), self.scale, self.one, self.other, self.expects])


def read(path: Path) -> tuple[Claim, ...]:
    """Reads a file of claims.

    Args:
        path: a TOML file with a `[[claim]]` table for each.

    Returns:
        The claims, in their order.

    Raises:
        UserError: the file is not valid, two claims share an id, or a test does not have the recorded hash.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8")).get("claim", [])
        claims = tuple(Claim.model_validate(table) for table in tables)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for i, claim in enumerate(claims):
        if any(claim.id == earlier.id for earlier in claims[:i]):
            raise UserError(f"{path}: two claims have the id {claim.id!r}; give each its own")
        if claim.sha256 != claim.test_hash:
            raise UserError(
                f"{path}: claim {claim.id!r}: its test has the hash {claim.test_hash}, the file says {claim.sha256!r}; "
                "a test that changes after its runs is a new claim"
            )
    return claims
