"""What a user would try before training an adapter; every report sets the candidate beside these, on the same rows.

majority: the commonest training label. linear: logistic regression on TF-IDF of the same training rows. hard_prompt:
the best of the written instructions. in_context: the best number of solved examples. Both are chosen on the validation
split. A generation task has neither majority nor linear. This module never sees the test targets: it only answers.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from components.base.base_model import Base
from components.config.params import TaskParams
from components.data.prepare import Example
from components.data.template import Template
from components.errors import DataError
from components.evaluation.metrics import leading_metric, score
from components.prefix.inference import answer
from components.prefix.kv_prefix import KVPrefix
from components.prefix.methods.text import hard_prompt, in_context_ids, in_turns

log = logging.getLogger("preface.baselines")


@dataclass(frozen=True)
class Answers:
    """A baseline's answers to the asked texts, and what was chosen for it on the validation split."""

    predictions: list[str]
    choice: str = ""


def run(
    base: Base,
    task: TaskParams,
    template: Template,
    train: Sequence[Example],
    validation: Sequence[Example],
    texts: Sequence[str],
) -> dict[str, Answers]:
    """Every baseline of a task on ``texts``, by name."""
    found: dict[str, Answers] = {}
    if template.labels is not None:
        found["majority"] = majority(train, len(texts))
        found["linear"] = linear(train, texts)
    prompts = hard_prompts(base, task)
    if prompts:
        log.info("hard_prompt: %d written instructions on %d validation rows", len(prompts), len(validation))
        found["hard_prompt"] = _best_of(base, task, template, prompts, validation, texts)
    asked = [*texts, *(example.text for example in validation)]
    shots = dict(in_context(base, task, template, train, asked))
    if shots:
        log.info("in_context: %s on %d validation rows", " and ".join(shots), len(validation))
        found["in_context"] = _best_of(base, task, template, shots, validation, texts)
    return found


def majority(train: Sequence[Example], count: int) -> Answers:
    """The commonest training label, the first in alphabet among equals, for each of ``count`` rows."""
    counted = Counter(example.target for example in train)
    label = min(counted, key=lambda name: (-counted[name], name))
    return Answers([label] * count, choice=label)


def linear(train: Sequence[Example], texts: Sequence[str]) -> Answers:
    """Logistic regression on TF-IDF of words and word pairs (scikit-learn).

    Where no training text has a word of two letters (emoji, single digits) it is TF-IDF of characters, up to three
    together. Where there is one label or no character at all, nothing can be fitted: it answers as majority does.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    known, labels = [example.text for example in train], [example.target for example in train]
    rows = f"{len(train)} rows"
    for vectorizer, choice in (
        (TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), rows),
        (TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 3), analyzer="char"), f"{rows}, characters: no words"),
    ):
        terms = vectorizer.build_analyzer()
        if len(set(labels)) > 1 and any(terms(text) for text in known):
            model = make_pipeline(vectorizer, LogisticRegression(C=10.0, max_iter=1000))
            model.fit(known, labels)
            return Answers([str(label) for label in model.predict(list(texts))], choice=choice)
    return Answers(majority(train, len(texts)).predictions, choice=f"{rows}, as majority: nothing to fit")


def hard_prompts(base: Base, task: TaskParams) -> dict[str, KVPrefix]:
    """The prefix of each written instruction."""
    return {text.strip(): hard_prompt(base, text) for text in task.baselines.hard_prompts}


def in_context(
    base: Base, task: TaskParams, template: Template, train: Sequence[Example], asked: Sequence[str]
) -> Iterator[tuple[str, KVPrefix]]:
    """A prefix of the first k examples, taken from the labels in turn, for each k that fits before what is asked."""
    turns = in_turns(train, template.labels is not None)
    words = template.label_ids(base.words).values()
    answer_tokens = max(map(len, words)) if words else task.max_new_tokens
    longest = max((len(template.input_ids(base.words, text)) for text in asked), default=0)
    room = base.shape.context - longest - answer_tokens
    for count in task.baselines.in_context:
        solved = turns[:count]
        ids = in_context_ids(base, template, task.instruction, solved)
        name = f"{len(solved)} example{'s' * (len(solved) > 1)}"
        if len(ids) <= room:
            yield name, KVPrefix.from_tokens(base, ids)
        else:
            log.warning("in_context: %s left out, %d tokens where %d have room", name, len(ids), room)


def _best_of(
    base: Base,
    task: TaskParams,
    template: Template,
    choices: Mapping[str, KVPrefix],
    validation: Sequence[Example],
    texts: Sequence[str],
) -> Answers:
    """Answers of the choice that does best on the validation split; the first among equals."""
    if not validation:
        raise DataError("no validation rows to choose a baseline on; raise data.split.validation")
    targets = [example.target for example in validation]
    asked = [example.text for example in validation]
    metric, labels = leading_metric(template.labels), list(template.labels) if template.labels else None

    def worth(name: str) -> float:
        given = answer(base, choices[name], template, asked, task.max_new_tokens)
        return score(given, targets, labels).metrics[metric]

    best = max(choices, key=worth) if len(choices) > 1 else next(iter(choices))
    return Answers(answer(base, choices[best], template, texts, task.max_new_tokens), choice=best)
