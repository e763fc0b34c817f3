"""CARD.md: what people should know before they trust a model, from the manifest's facts."""

from __future__ import annotations

from dfd_edge.bundle.manifest import (
    Calibrator,
    DecisionSpec,
    Manifest,
    Metric,
    PersonScore,
    SequenceSpec,
    Threshold,
    VariantChanges,
    VariantSpec,
)

CARD_FILE = "CARD.md"


def render_card(manifest: Manifest) -> str:
    """Writes the card of a bundle as Markdown."""
    card, frame, sequence = manifest.card, manifest.frame, manifest.sequence
    parts = [
        f"# {manifest.name}",
        "Tells how likely a face in a picture or video is a deepfake. A score is evidence, not "
        "proof: see the limits below.",
        "## Training data",
        card.training_data,
        "## Protocol",
        card.protocol,
        "## Figures",
        _figures(card.metrics),
        "## Decision",
        *_decisions(manifest),
        "## Limits",
        "\n".join(f"- {limit}" for limit in card.limits),
        "## Model",
        "\n".join(
            [
                f"- {_pictures(manifest)}",
                f"- {frame.feature_width} features a crop; precisions: {', '.join(frame.variants)}",
                f"- {_steps(sequence)}",
                *_signals(sequence),
                f"- Written {manifest.created}, schema version {manifest.schema_version}",
            ]
        ),
        *_variants(frame.variants),
        "## Licence",
        card.licence,
    ]
    return "\n\n".join(parts) + "\n"


def _steps(sequence: SequenceSpec) -> str:
    """Describes which frames are judged."""
    if sequence.first_frames is not None:
        return f"The first {sequence.first_frames} frames of a clip, every one, and none after them"
    return (
        f"{sequence.rate_hz:g} steps a second; after a gap of {sequence.max_gap_s:g} s the "
        "sequence starts anew"
    )


def _signals(sequence: SequenceSpec) -> list[str]:
    if (signals := sequence.signals) is None:
        return []
    return [
        f"- {signals.width} measurements of consecutive frames a step (version "
        f"{signals.version}), where there are such frames"
    ]


def _variants(variants: dict[str, VariantSpec]) -> list[str]:
    """A section on what each variant changes; none where there is only fp32."""
    changes = {name: v.changes for name, v in variants.items() if v.changes is not None}
    if not changes:
        return []
    lines = [
        "| precision | logit changes (mean, largest) | frame AUC changes "
        "| clips with another label | speed | crops |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {c.mean_logit:.3g}, {c.max_logit:.3g} | {c.auc.value:+.4f}"
        f"{_interval(c.auc, ' [{low:+.4f}, {high:+.4f}]')} | {_labels_changed(c)} | "
        f"{c.speedup.value:.2f} x on {c.processor} ({c.provider}) | {c.crops} {c.data} |"
        for name, c in changes.items()
    ]
    return ["## Variants, against fp32", "\n".join(lines)]


def _labels_changed(changes: VariantChanges) -> str:
    if not changes.clips:
        return "not counted"
    return f"{changes.labels_changed} of {changes.clips}"


def _pictures(manifest: Manifest) -> str:
    frame, detector = manifest.frame, manifest.face.detector
    size = f"{frame.input_size} x {frame.input_size} px ({frame.resize.value})"
    if detector == "none":
        return f"The middle square of each frame, resized to {size}: no face is looked for"
    return (
        f"Face crops of {size}, the side {frame.crop_scale:g} times the face's box, found by "
        f"{detector}"
    )


def _figures(metrics: dict[str, Metric]) -> str:
    if not metrics:
        return "None were measured."
    lines = ["| figure | value | 95 % interval | n |", "|---|---|---|---|"]
    for name, metric in metrics.items():
        interval = _interval(metric, "{low:.3f} to {high:.3f}")
        n = "" if metric.n is None else str(metric.n)
        lines.append(f"| {name} | {metric.value:.3f} | {interval} | {n} |")
    return "\n".join(lines)


def _interval(metric: Metric, form: str) -> str:
    """The interval in a form with places for `low` and `high`; nothing where there is none."""
    if metric.low is None or metric.high is None:
        return ""
    return form.format(low=metric.low, high=metric.high)


def _decisions(manifest: Manifest) -> list[str]:
    """The bundle's decision, and those of variants that have their own."""
    own = {name: v.decision for name, v in manifest.frame.variants.items() if v.decision}
    if not own:
        return [_decision(manifest.decision)]
    shared = ", ".join(name for name in manifest.frame.variants if name not in own)
    parts = [f"### {shared}", _decision(manifest.decision)]
    for name, decision in own.items():
        parts += [f"### {name}", _decision(decision)]
    return parts


def _decision(decision: DecisionSpec) -> str:
    fake, real = decision.thresholds["fake"], decision.thresholds["real"]
    lines = [
        f"- A person's score is {_score(decision)}, {_formula(decision.calibrators['person'])}.",
        f"- `fake` from {fake.probability:.3f} on: {_rate(fake, 'real', 'fake')}.",
        f"- `real` up to {real.probability:.3f}: {_rate(real, 'fake', 'real')}.",
        f"- `unsure` between the two, and with fewer than {decision.min_steps} judged steps.",
    ]
    if decision.settle_detail:
        lines.append(
            "- A blurred crop counts less: what the calibrator gives for a step is multiplied by "
            f"d / (d + {decision.settle_detail:g}), d the variance of the crop's Laplacian."
        )
    if decision.settle_steps:
        lines.append(
            f"- A short look counts less: what the calibrator gives for n judged steps is "
            f"multiplied by n / (n + {decision.settle_steps:g}) before the sigmoid."
        )
    if (still := decision.still) is not None:
        fake, real = still.thresholds["fake"], still.thresholds["real"]
        lines += [
            f"- A still's score is its frame logit, {_formula(still.calibrator)}.",
            f"- A still is `fake` from {fake.probability:.3f} on: {_rate(fake, 'real', 'fake')}.",
            f"- A still is `real` up to {real.probability:.3f}: {_rate(real, 'fake', 'real')}.",
        ]
    return "\n".join(lines)


def _score(decision: DecisionSpec) -> str:
    if decision.person_score is PersonScore.LAST:
        return "the sequence logit after the last frame"
    return f"the mean of the {decision.person_score.value} logits"


def _rate(threshold: Threshold, truth: str, label: str) -> str:
    if not threshold.n:
        return f"nobody measured how many {truth} sources are called {label}"
    return (
        f"set so that at most {threshold.target_rate:.1%} of {truth} sources are called {label}; "
        f"on the training's own folds {threshold.rate:.1%} were, {threshold.n} groups of footage "
        f"weighing alike, at most {threshold.upper_bound:.1%} with 95 % confidence"
    )


def _formula(calibrator: Calibrator) -> str:
    if (calibrator.slope, calibrator.intercept) == (1.0, 0.0):
        return "not calibrated (P = sigmoid(logit))"
    return f"calibrated (P = sigmoid({calibrator.slope:.3f} x logit {calibrator.intercept:+.3f}))"
