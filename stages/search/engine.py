"""The search loop: ask a strategy, score what it proposes, tell it, remember everything.

Scores that an interrupted search recorded are told to the strategy instead of being measured again;
as strategies are deterministic, the search then continues exactly where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stages.search.evaluate import Outcome
from stages.search.executor import Bars, Executor
from stages.search.halving import Hurdles, estimates
from stages.search.space import Counts
from stages.search.strategies import WARM_START, Proposal, Strategy
from stages.search.strategies.base import Key
from stages.search.trial import Trial


@dataclass
class Search:
    """Scores proposals through one executor, one memory and one journal.

    Attributes:
        recorded: trials of an interrupted search by (phase, index). on_trial: called for every new
        trial as it finishes (the journal), and for replayed ones with True. on_batch: called with
        the strategy and its trials so far after every batch it was told about. check: called
        between trials; raises to stop the search. removed: importance of what a candidate cuts, in
        any unit.
    """

    executor: Executor
    recorded: Mapping[tuple[str, int], Trial] = field(default_factory=dict)
    on_trial: Callable[[Trial, bool], None] = lambda trial, replayed: None
    check: Callable[[], None] = lambda: None
    on_batch: Callable[[Strategy, Sequence[Trial]], None] = lambda strategy, trials: None
    halving: bool = True
    removed: Callable[[Counts], float] = lambda counts: 0.0
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
            batch = self.score(phase, len(done), proposals, alike if self.halving else None)
            done.extend(batch)
            told = estimates([*alike, *batch], self.removed)[len(alike) :]
            strategy.tell([trial.proposal for trial in batch], told)
            self.on_batch(strategy, done)
        return done

    def score(
        self,
        phase: str,
        first: int,
        proposals: Sequence[Proposal],
        alike: Sequence[Trial] | None = None,
    ) -> list[Trial]:
        """Trials for proposals, in their order, numbered from `first`.

        Args:
            alike: what bars are drawn from; None scores every proposal on all images, without a
                glance.
        """
        results: dict[int, Trial] = {}
        for offset, proposal in enumerate(proposals):
            known = self.recorded.get((phase, first + offset))
            if known is None:
                continue
            if known.key == proposal.key:
                results[offset] = replace(known, proposal=proposal)
                self._remember(results[offset], True)
            else:
                self.mismatched += 1
        todo: dict[Key, list[int]] = {}
        for offset, proposal in enumerate(proposals):
            if offset not in results:
                todo.setdefault(proposal.key, []).append(offset)
        hurdles = Hurdles.of(alike, self.removed) if alike is not None else None
        bars = {key: hurdles.bars(np.array(key)) if hurdles else () for key in todo}
        fresh = [offsets for key, offsets in todo.items() if not self._known(key, bars[key])]
        self.check()
        jobs = [
            (proposals[offsets[0]].counts, bars[proposals[offsets[0]].key]) for offsets in fresh
        ]
        for job, outcome in self.executor.run(jobs):
            offset = fresh[job][0]
            results[offset] = Trial(phase, first + offset, proposals[offset], outcome)
            self._remember(results[offset], False)
            self.check()
        for key, offsets in todo.items():
            for offset in offsets:
                if offset not in results:
                    results[offset] = Trial(
                        phase, first + offset, proposals[offset], self.memory[key], cached=True
                    )
                    self._remember(results[offset], False)
        return [results[offset] for offset in range(len(proposals))]

    def _known(self, key: Key, bars: Bars) -> bool:
        """Whether memory answers: a candidate stopped early counts as known unless all images
        are wanted.
        """
        found = self.memory.get(key)
        return found is not None and (not found.stopped or max(bars, default=-math.inf) > -math.inf)

    def _remember(self, trial: Trial, replayed: bool) -> None:
        held = self.memory.get(trial.key)
        if held is None or held.stopped:
            self.memory[trial.key] = trial.outcome
        self.on_trial(trial, replayed)


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Distinct eligible candidates that saw all images, best first; ties by first appearance."""
    first: dict[Key, Trial] = {}
    for trial in trials:
        if trial.proposal.eligible and not trial.outcome.stopped:
            first.setdefault(trial.key, trial)
    return sorted(first.values(), key=lambda trial: -trial.outcome.score)


def finalists(trials: Sequence[Trial], count: int) -> list[Trial]:
    """The best `count`; where they are several, also the warm start: trials are noisy, and it
    is known to be good.
    """
    leaders = ranked(trials)
    start = [trial for trial in leaders[count:] if trial.proposal.origin == WARM_START]
    return leaders[:count] + (start if count > 1 else [])
