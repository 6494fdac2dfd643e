"""All claims, from the files of `papers/`."""

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Sequence

from claims import papers
from claims.claim import Claim, Paper
from claims.errors import ClaimError


@functools.cache
def all_papers() -> tuple[Paper, ...]:
    """Every file of the registry, by year and name."""
    found = []
    for module in pkgutil.iter_modules(papers.__path__):
        if not module.name.startswith("_"):
            loaded = importlib.import_module(f"claims.papers.{module.name}")
            found.append((loaded.YEAR, Paper(module.name, loaded.TITLE, tuple(loaded.CLAIMS))))
    return tuple(paper for _, paper in sorted(found, key=lambda f: (f[0], f[1].name)))


def all_claims() -> list[Claim]:
    """Every claim."""
    return [claim for paper in all_papers() for claim in paper.claims]


def chosen_papers(name: str | None) -> Sequence[Paper]:
    """The paper of a name, or all.

    Raises:
      ClaimError: there is no such paper.
    """
    found = [paper for paper in all_papers() if name in (None, paper.name)]
    if not found:
        names = ", ".join(paper.name for paper in all_papers())
        raise ClaimError(f"--paper={name}: no such paper; there are {names}")
    return found


def find(name: str) -> Claim:
    """The claim of an id.

    Raises:
      ClaimError: there is none; the message names the nearest.
    """
    known = {claim.id: claim for claim in all_claims()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    near = near or [id for id in known if name and name in id][:3]
    hint = f"did you mean {', '.join(near)}?" if near else "python -m claims list names all"
    raise ClaimError(f"{name}: no such claim; {hint}")
