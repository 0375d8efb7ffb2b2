"""The search loop: ask a strategy, score what it proposes, tell it, remember everything.

Scores that an interrupted search recorded are told to the strategy instead of being measured again;
as strategies are deterministic, the search then continues exactly where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.channels.counts import Counts
from pipeline.config.search import EvaluationConfig
from stages.search.evaluation.executor import Executor
from stages.search.evaluation.halving import Promotion, Thresholds, told_scores
from stages.search.evaluation.trial import Outcome, Trial
from stages.search.space.candidate import Candidate, CountsKey
from stages.search.space.ranking import Removed
from stages.search.strategies.base import Strategy


@dataclass
class Search:
    """Scores candidates through one executor, one memory and one journal.

    Attributes:
        removed: what a candidate loses by its cut alone, in any unit.
        rules: rungs and promotion.
        halving: whether candidates pass rungs at all.
        recorded: trials of an interrupted search by (phase, index).
        on_trial: called for every new trial as it finishes (the journal), and for replayed ones
            with True.
        check: called between trials; raises to stop the search.
        on_batch: called with the strategy and its trials so far after every batch it was told of.
        memory: outcomes by counts, so that a repeated candidate is answered without scoring.
        mismatched: recorded trials that were not those asked for again.
    """

    executor: Executor
    removed: Removed = lambda counts: 0.0
    rules: EvaluationConfig = field(default_factory=EvaluationConfig)
    halving: bool = True
    recorded: Mapping[tuple[str, int], Trial] = field(default_factory=dict)
    on_trial: Callable[[Trial, bool], None] = lambda trial, replayed: None
    check: Callable[[], None] = lambda: None
    on_batch: Callable[[Strategy, Sequence[Trial]], None] = lambda strategy, trials: None
    memory: dict[CountsKey, Outcome] = field(default_factory=dict)
    mismatched: int = 0

    def run(self, phase: str, strategy: Strategy, trials: int) -> list[Trial]:
        """Let `strategy` have up to `trials` candidates scored; it may have fewer."""
        done: list[Trial] = []
        while len(done) < trials:
            asked = strategy.ask(trials - len(done))
            if not asked:
                break
            # scores under another budget would shift thresholds and predictions
            alike = [trial for trial in done if trial.candidate.step == asked[0].step]
            batch = self.score(phase, asked, first=len(done), alike=alike if self.halving else None)
            done.extend(batch)
            # by models that know this batch too
            scores = told_scores([*alike, *batch], self.removed, self.rules)[len(alike) :]
            strategy.tell([trial.candidate for trial in batch], scores)
            self.on_batch(strategy, done)
        return done

    def score(
        self,
        phase: str,
        candidates: Sequence[Candidate],
        *,
        first: int = 0,
        alike: Sequence[Trial] | None = None,
    ) -> list[Trial]:
        """Trials for candidates, in their order, numbered from `first`.

        Args:
            alike: trials that thresholds are drawn from; None scores every candidate on all
                images, without rungs.
        """
        found = self._replayed(phase, candidates, first)
        waiting = [place for place in range(len(candidates)) if place not in found]
        jobs = self._jobs(candidates, waiting, alike)
        places = list(jobs)
        self.check()
        for job, outcome in self.executor.run(list(jobs.values())):
            place = places[job]
            found[place] = Trial(phase, first + place, candidates[place], outcome)
            self._remember(found[place])
            self.check()
        for place in waiting:
            if place not in found:
                known = self.memory[candidates[place].key]
                found[place] = Trial(phase, first + place, candidates[place], known, cached=True)
                self._remember(found[place])
        return [found[place] for place in range(len(candidates))]

    def _jobs(
        self,
        candidates: Sequence[Candidate],
        waiting: Sequence[int],
        alike: Sequence[Trial] | None,
    ) -> dict[int, tuple[Counts, Thresholds]]:
        """What has to be evaluated, by place: equal candidates once, known ones not at all."""
        promotion = None if alike is None else Promotion.of(alike, self.removed, self.rules)
        jobs: dict[int, tuple[Counts, Thresholds]] = {}
        seen: set[CountsKey] = set()
        for place in waiting:
            candidate = candidates[place]
            if candidate.key in seen:
                continue
            seen.add(candidate.key)
            thresholds = promotion.thresholds(candidate.counts) if promotion else ()
            if not self._known(candidate.key, thresholds):
                jobs[place] = candidate.counts, thresholds
        return jobs

    def _replayed(
        self, phase: str, candidates: Sequence[Candidate], first: int
    ) -> dict[int, Trial]:
        """Recorded trials of these candidates, by place."""
        found: dict[int, Trial] = {}
        for place, candidate in enumerate(candidates):
            known = self.recorded.get((phase, first + place))
            if known is None:
                continue
            if known.key == candidate.key:
                found[place] = replace(known, candidate=candidate)
                self._remember(found[place], replayed=True)
            else:
                self.mismatched += 1
        return found

    def _known(self, key: CountsKey, thresholds: Thresholds) -> bool:
        """Whether memory answers.

        A candidate that was not promoted counts as known unless all images are wanted.
        """
        found = self.memory.get(key)
        if found is None:
            return False
        return not found.stopped or max(thresholds, default=-math.inf) > -math.inf

    def _remember(self, trial: Trial, replayed: bool = False) -> None:
        held = self.memory.get(trial.key)
        if held is None or held.stopped:  # a complete outcome is never replaced
            self.memory[trial.key] = trial.outcome
        self.on_trial(trial, replayed)
