"""The search loop: ask a strategy, score what it proposes, tell it, remember everything.

Scores that an interrupted search recorded are told to the strategy instead of being measured again; as
strategies are deterministic, the search then continues exactly where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stages.search.evaluate import GLANCES, Outcome
from stages.search.executor import Bars, Executor
from stages.search.strategies import Proposal, Strategy

Key = tuple[int, ...]
ENOUGH = 8  # scored candidates before a bar means anything
CARRIED = 0.25  # halving: the share of candidates that is carried on from each glance
WINDOW = 32  # latest candidates that a bar is drawn from: a policy that learns must not carry on all it proposes


@dataclass(frozen=True)
class Trial:
    """One candidate and what it scored.

    Attributes:
        phase: the strategy that proposed it, or "finalists".
        index: position within the phase, from 0.
        cached: whether the same counts had been scored before.
    """

    phase: str
    index: int
    proposal: Proposal
    outcome: Outcome
    cached: bool = False

    @property
    def key(self) -> Key:
        return tuple(self.proposal.counts.tolist())


@dataclass
class Search:
    """Scores proposals through one executor, one memory and one journal.

    Attributes:
        recorded: trials of an interrupted search by (phase, index).
        on_trial: called for every new trial as it finishes (the journal), and for replayed ones with True.
        on_batch: called with the strategy and its trials so far after every batch it was told about.
        check: called between trials; raises to stop the search.
    """

    executor: Executor
    recorded: Mapping[tuple[str, int], Trial] = field(default_factory=dict)
    on_trial: Callable[[Trial, bool], None] = lambda trial, replayed: None
    check: Callable[[], None] = lambda: None
    on_batch: Callable[[Strategy, Sequence[Trial]], None] = lambda strategy, trials: None
    halving: bool = True
    memory: dict[Key, Outcome] = field(default_factory=dict)
    mismatched: int = 0

    def run(self, phase: str, strategy: Strategy, trials: int) -> list[Trial]:
        """Let `strategy` have `trials` candidates scored."""
        done: list[Trial] = []
        while len(done) < trials:
            proposals = strategy.ask(trials - len(done))
            if not proposals:
                break
            alike = [trial for trial in done if trial.proposal.step == proposals[0].step]
            batch = self.score(phase, len(done), proposals, _bars(alike) if self.halving else ())
            done.extend(batch)
            told = estimates([*alike, *batch])[len(alike) :]
            strategy.tell([trial.proposal for trial in batch], told)
            self.on_batch(strategy, done)
        return done

    def score(self, phase: str, first: int, proposals: Sequence[Proposal], bars: Bars = ()) -> list[Trial]:
        """Trials for proposals, in their order, numbered from `first`."""
        results: dict[int, Trial] = {}
        for offset, proposal in enumerate(proposals):
            known = self.recorded.get((phase, first + offset))
            if known is None:
                continue
            if known.key == _key(proposal):
                results[offset] = replace(known, proposal=proposal)
                self._remember(results[offset], True)
            else:
                self.mismatched += 1
        todo: dict[Key, list[int]] = {}
        for offset, proposal in enumerate(proposals):
            if offset not in results:
                todo.setdefault(_key(proposal), []).append(offset)
        fresh = [offsets for key, offsets in todo.items() if not self._known(key, bars)]
        self.check()
        for job, outcome in self.executor.run([(proposals[offsets[0]].counts, bars) for offsets in fresh]):
            offset = fresh[job][0]
            results[offset] = Trial(phase, first + offset, proposals[offset], outcome)
            self._remember(results[offset], False)
            self.check()
        for key, offsets in todo.items():
            for offset in offsets:
                if offset not in results:
                    results[offset] = Trial(phase, first + offset, proposals[offset], self.memory[key], cached=True)
                    self._remember(results[offset], False)
        return [results[offset] for offset in range(len(proposals))]

    def _known(self, key: Key, bars: Bars) -> bool:
        """Whether memory answers: a candidate stopped early counts as known unless all images are wanted."""
        found = self.memory.get(key)
        return found is not None and (not found.stopped or max(bars, default=-math.inf) > -math.inf)

    def _remember(self, trial: Trial, replayed: bool) -> None:
        held = self.memory.get(trial.key)
        if held is None or held.stopped:
            self.memory[trial.key] = trial.outcome
        self.on_trial(trial, replayed)


def _bars(trials: Sequence[Trial]) -> Bars:
    """For each glance what the better ones of the latest candidates scored there.

    A policy that learns proposes ever more that would pass; the bar rises by as much as too many did.
    """
    bars = []
    for glance in range(len(GLANCES)):
        outcomes = [t.outcome for t in trials if len(t.outcome.rungs) > glance][-WINDOW:]
        if len(outcomes) < ENOUGH:
            bars.append(-math.inf)
            continue
        passed = np.mean([not o.stopped or len(o.rungs) > glance + 1 for o in outcomes])
        share = CARRIED * min(1.0, CARRIED / float(passed)) if passed else CARRIED
        bars.append(float(np.quantile([o.rungs[glance] for o in outcomes], 1 - share)))
    return tuple(bars)


def estimates(trials: Sequence[Trial]) -> list[float]:
    """Scores as a strategy is told them: one of a glance is put on the scale of the whole evaluation.

    Few images and their own batch statistics make every candidate look worse by about the same factor, which
    is known from the candidates that were carried on.
    """
    factors = []
    for glance in range(len(GLANCES)):
        whole = [t.outcome for t in trials if not t.outcome.stopped and len(t.outcome.rungs) > glance]
        glanced = sum(outcome.rungs[glance] for outcome in whole)
        factors.append(sum(outcome.score for outcome in whole) / glanced if glanced else 1.0)
    outcomes = [trial.outcome for trial in trials]
    return [o.score * factors[len(o.rungs) - 1] if o.stopped else o.score for o in outcomes]


def _key(proposal: Proposal) -> Key:
    return tuple(proposal.counts.tolist())


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Distinct eligible candidates that saw all images, best first; ties by first appearance."""
    first: dict[Key, Trial] = {}
    for trial in trials:
        if trial.proposal.eligible and not trial.outcome.stopped:
            first.setdefault(trial.key, trial)
    return sorted(first.values(), key=lambda trial: -trial.outcome.score)
