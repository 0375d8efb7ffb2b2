"""The search loop: ask a strategy, score what it proposes, tell it, remember everything.

Scores that an interrupted search recorded are told to the strategy instead of being measured again; as
strategies are deterministic, the search then continues exactly where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stages.search.evaluate import Outcome
from stages.search.executor import Executor
from stages.search.strategies import Proposal, Strategy

Key = tuple[int, ...]
ENOUGH = 8  # scored candidates before the bar means anything
BAR_QUANTILE = 0.5  # halving: carried on are candidates whose first rung beats the median so far


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
            bar = self._bar(alike) if self.halving else -math.inf
            batch = self.score(phase, len(done), proposals, bar)
            strategy.tell([trial.proposal for trial in batch], [trial.outcome.score for trial in batch])
            done.extend(batch)
            self.on_batch(strategy, done)
        return done

    def score(self, phase: str, first: int, proposals: Sequence[Proposal], bar: float = -math.inf) -> list[Trial]:
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
        fresh = [offsets for key, offsets in todo.items() if not self._known(key, bar)]
        self.check()
        for job, outcome in self.executor.run([(proposals[offsets[0]].counts, bar) for offsets in fresh]):
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

    def _known(self, key: Key, bar: float) -> bool:
        """Whether memory answers: a candidate stopped early counts as known unless all images are wanted."""
        found = self.memory.get(key)
        return found is not None and (not found.stopped or bar > -math.inf)

    def _remember(self, trial: Trial, replayed: bool) -> None:
        held = self.memory.get(trial.key)
        if held is None or held.stopped:
            self.memory[trial.key] = trial.outcome
        self.on_trial(trial, replayed)

    @staticmethod
    def _bar(trials: Sequence[Trial]) -> float:
        rungs = [trial.outcome.rung for trial in trials]
        return float(np.quantile(rungs, BAR_QUANTILE)) if len(rungs) >= ENOUGH else -math.inf


def _key(proposal: Proposal) -> Key:
    return tuple(proposal.counts.tolist())


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Distinct eligible candidates that saw all images, best first; ties by first appearance."""
    first: dict[Key, Trial] = {}
    for trial in trials:
        if trial.proposal.eligible and not trial.outcome.stopped:
            first.setdefault(trial.key, trial)
    return sorted(first.values(), key=lambda trial: -trial.outcome.score)
