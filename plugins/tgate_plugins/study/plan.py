"""From what a study knows to what is to be done next: a pure function of spec and log.

Whoever asks again after a crash is told the same, less what is done. The order in which the work
is then done changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tgate_plugins.study import fid
from tgate_plugins.study.items import Count, Curves, Item, Round, Survey
from tgate_plugins.study.rivals import rivals
from tgate_plugins.study.spec import StudySpec, Subject
from tgate_plugins.study.state import Known, State
from tgate_plugins.study.ways import Way


def ready(study: StudySpec, state: State) -> Iterator[Item]:
    """Everything that can be done now, model by model."""
    for subject in study.subjects:
        if subject.name not in state.broken:
            yield from _ready(subject, state)


def _ready(subject: Subject, state: State) -> Sequence[Item]:
    """A model's work comes in four turns; each needs the one before it whole."""
    known = state.models.get(subject.name)
    if known is None:
        return [Survey(subject.name)]
    if first := [*_rounds(subject, state, known.running)]:
        return first
    counts: list[Item] = [*_counts(subject, state, known)]
    if subject.name not in state.curves:
        counts.append(Curves(subject.name))
    if counts:
        return counts
    fewer = {way.label: way for way in rivals(state, subject, known).values()}
    return [*_rounds(subject, state, fewer.values()), *fid.batches(subject, state, known)]


def _rounds(subject: Subject, state: State, ways: Iterable[Way]) -> Iterator[Round]:
    ways = tuple(ways)
    for image in subject.images:
        missing = tuple(w.spec for w in ways if state.picture(subject.name, w.label, image) is None)
        if missing:
            yield Round(subject.name, *image, missing)


def _counts(subject: Subject, state: State, known: Known) -> Iterator[Count]:
    """Methods whose pictures do not say what they took."""
    for way in known.running:
        good = state.good(subject.name, way.label, subject.images)
        if not good or (subject.name, way.label) in state.costs:
            continue
        if state.cost(good[0], way) is None:
            yield Count(subject.name, way.spec, good[0]["prompt"], good[0]["seed"])


def pictures_planned(study: StudySpec, state: State) -> dict[str, tuple[int, int]]:
    """Of each model: pictures there are, and pictures there will be as far as is known."""
    found = {}
    for subject in study.subjects:
        known = state.models.get(subject.name)
        if known is None:
            found[subject.name] = (0, 0)
            continue
        ways = {way.label for way in known.running}
        ways |= {way.label for way in rivals(state, subject, known).values()}
        asked = [(label, image) for label in ways for image in subject.images]
        done = sum(state.picture(subject.name, *one) is not None for one in asked)
        found[subject.name] = (done, len(asked))
    return found
