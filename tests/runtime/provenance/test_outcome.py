"""The conclusion from manifest and metadata, and its words for a lay reader."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from dfd_edge.provenance.outcome import conclude
from dfd_edge.provenance.record import (
    Action,
    Ingredient,
    Manifest,
    Mark,
    Outcome,
    Signature,
)
from dfd_edge.provenance.source_types import action_meaning, source_type
from dfd_edge.provenance.validation import Codes, signature_of
from stated_origins import SIGNATURE as SIGNED

SIGNATURE = replace(SIGNED, signer="Example Cameras", signed_at="2026-03-01T08:00:00Z")
UNTRUSTED = replace(
    SIGNATURE,
    trusted=False,
    problems=("the signer is not on the trust list",),
    codes=("signingCredential.untrusted",),
)
CHANGED = replace(
    SIGNATURE,
    bytes_match=False,
    problems=("the file was changed after signing",),
    codes=("assertion.dataHash.mismatch",),
)


def manifest(
    *codes: str, signature: Signature = SIGNATURE, ingredients: tuple[Ingredient, ...] = ()
) -> Manifest:
    """A manifest whose actions bring in these source types, the first of them at its creation."""
    names = ["c2pa.created", *["c2pa.edited"] * len(codes)]
    actions = tuple(
        Action(name, action_meaning(name), source_type=source_type(code))
        for name, code in zip(names, codes, strict=False)
    )
    types = tuple(action.source_type for action in actions)
    return Manifest("embedded", "Camera 1", None, signature, actions, types, ingredients)


def part(
    *codes: str,
    state: str = "signed",
    relationship: str = "componentOf",
    below: tuple[Ingredient, ...] = (),
    trusted: bool = True,
) -> Ingredient:
    types = tuple(source_type(code) for code in codes)
    return Ingredient(
        "part", "image/jpeg", relationship, state, "Part Signer", None, types, below, trusted
    )


UNSIGNED = part(state="unsigned", trusted=False)


SIGNER_MARK = Mark("exif.Make", "Example")
GENERATOR_MARK = Mark("png.parameters", "a cat", generator="Example Diffusion")
AI_MARK = Mark("xmp.DigitalSourceType", "x", source_type=source_type("trainedAlgorithmicMedia"))


@pytest.mark.parametrize(
    ("given", "outcome", "words"),
    [
        (manifest("digitalCapture"), Outcome.CAPTURE, "taken with a camera"),
        (manifest("computationalCapture"), Outcome.CAPTURE, "several shots of a camera"),
        (manifest("digitalCapture", "humanEdits"), Outcome.CAPTURE, "edited afterwards"),
        (manifest("digitalCapture", signature=UNTRUSTED), Outcome.OTHER, "anyone can have signed"),
        (manifest("digitalCapture", signature=CHANGED), Outcome.BROKEN, "changed after signing"),
        (manifest("trainedAlgorithmicMedia"), Outcome.AI, "AI generated it"),
        (manifest("digitalCapture", "compositeSynthetic"), Outcome.AI, "AI edited it, or"),
        (manifest("trainedAlgorithmicMedia", signature=UNTRUSTED), Outcome.AI, "anyone can have"),
        (manifest(signature=UNTRUSTED), Outcome.OTHER, "Signed in the name of Example Cameras"),
        (manifest("trainedAlgorithmicMedia", signature=CHANGED), Outcome.BROKEN, "relied on"),
        (manifest("digitalCreation"), Outcome.OTHER, "neither a camera nor AI"),
        (manifest("compositeCapture"), Outcome.OTHER, "neither a camera nor AI"),
        (manifest("com.example.new"), Outcome.OTHER, "neither a camera nor AI"),
        (manifest(), Outcome.OTHER, "neither a camera nor AI"),
        (
            manifest("digitalCapture", ingredients=(part("trainedAlgorithmicMedia"),)),
            Outcome.AI,
            "something that AI generated went into it",
        ),
        (
            manifest("digitalCapture", ingredients=(part(below=(part("compositeSynthetic"),)),)),
            Outcome.AI,
            "something that AI edited",
        ),
        (
            manifest("digitalCapture", ingredients=(part(state="broken"),)),
            Outcome.OTHER,
            "But another file went into it whose own record does not hold",
        ),
        (
            manifest("digitalCapture", ingredients=(part("digitalCapture"),)),
            Outcome.CAPTURE,
            "taken with a camera",
        ),
        (
            manifest("digitalCapture", ingredients=(UNSIGNED,)),
            Outcome.OTHER,
            "But another file went into it that has no signed record of its own",
        ),
        (
            manifest("digitalCapture", ingredients=(part("digitalCapture", below=(UNSIGNED,)),)),
            Outcome.OTHER,
            "But another file went into it that has no signed record of its own",
        ),
        (
            manifest("digitalCapture", ingredients=(part("digitalCapture", trusted=False),)),
            Outcome.OTHER,
            "But another file went into it whose own record anyone can have signed",
        ),
        (
            manifest(ingredients=(part("digitalCapture", relationship="parentOf"),)),
            Outcome.OTHER,
            "comes from a file that Part Signer signed as taken with a camera",
        ),
        (
            manifest(
                ingredients=(
                    part("print", "digitalCapture", relationship="parentOf", trusted=False),
                )
            ),
            Outcome.OTHER,
            "recording device in the name of Part Signer, which anyone can have done",
        ),
        (
            manifest(ingredients=(part(state="broken", relationship="parentOf"),)),
            Outcome.OTHER,
            "record of the file that it comes from does not hold",
        ),
        (replace(manifest("digitalCapture"), cut=True), Outcome.OTHER, "too long to be read whole"),
        (
            replace(manifest(), cut=True),
            Outcome.OTHER,
            "neither a camera nor AI as its origin, as far as it was read: it is too long",
        ),
        (
            manifest("digitalCapture", signature=replace(SIGNATURE, bytes_match=None)),
            Outcome.BROKEN,
            "does not show that it belongs to this file",
        ),
        (
            manifest("digitalCapture", signature=replace(SIGNATURE, holds=False)),
            Outcome.BROKEN,
            "the signature does not fit",
        ),
    ],
)
def test_a_manifest(given, outcome, words):
    found = conclude(given)
    assert found.outcome is outcome
    assert words in found.summary
    assert found.manifest is given


@pytest.mark.parametrize(
    ("marks", "outcome", "words"),
    [
        ((), Outcome.NOTHING, "the usual case, and says nothing for or against it"),
        ((SIGNER_MARK,), Outcome.NOTHING, "the usual case"),
        ((SIGNER_MARK, GENERATOR_MARK), Outcome.MARKS, "a mark of Example Diffusion"),
        ((AI_MARK,), Outcome.MARKS, "Its metadata say: generated by AI"),
    ],
)
def test_marks_without_a_manifest(marks, outcome, words):
    found = conclude(None, marks=marks)
    assert found.outcome is outcome
    assert words in found.summary
    if outcome is Outcome.MARKS:
        assert "anyone can write such a mark, or remove it" in found.summary
        assert found.marks[0] in (GENERATOR_MARK, AI_MARK), "known marks of generators come first"


def test_marks_do_not_change_what_a_manifest_says():
    found = conclude(manifest("digitalCapture"), marks=(GENERATOR_MARK,))
    assert found.outcome is Outcome.CAPTURE
    assert found.marks == (GENERATOR_MARK,)
    assert "metadata carry a mark of Example Diffusion" in found.summary


def test_a_manifest_kept_elsewhere_is_named():
    found = conclude(None, remote="https://example.org/m.c2pa")
    assert found.outcome is Outcome.NOTHING
    assert "https://example.org/m.c2pa, which was not fetched" in found.summary


def test_an_error_is_no_finding():
    found = conclude(None, error="the structure of the file is damaged")
    assert found.outcome is Outcome.ERROR
    assert "the structure of the file is damaged" in found.summary
    assert conclude(None, marks=(GENERATOR_MARK,), error="no").outcome is Outcome.MARKS
    assert conclude(manifest("digitalCapture"), error="no").outcome is Outcome.CAPTURE


@pytest.mark.parametrize("codes", [("digitalCapture",), ("trainedAlgorithmicMedia",), ()])
@pytest.mark.parametrize("signature", [SIGNATURE, UNTRUSTED, CHANGED])
def test_no_summary_calls_a_file_real_or_authentic(codes, signature):
    summary = conclude(manifest(*codes, signature=signature)).summary
    assert not re.search(r"\b(real|authentic|genuine|fake|verified)\b", summary, re.IGNORECASE)
    assert not re.search(r"C2PA|manifest|claim|assertion|hash", summary), "jargon"
    assert "  " not in summary
    assert summary.endswith(".")


def test_a_time_is_named_only_where_a_time_stamp_vouches_for_it():
    assert "on 2026-03-01" in conclude(manifest("digitalCapture")).summary
    unstamped = replace(SIGNATURE, time_stamped=False)
    assert "2026" not in conclude(manifest("digitalCapture", signature=unstamped)).summary


@pytest.mark.parametrize(
    ("text", "code", "kind"),
    [
        ("http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture", "digitalCapture", 0),
        ("https://cv.iptc.org/newscodes/digitalsourcetype/print/", "print", 3),
        ("digsrctype:trainedAlgorithmicMedia", "trainedAlgorithmicMedia", 1),
        ("c2pa.trainedAlgorithmicData", "trainedAlgorithmicData", 1),
        ("http://c2pa.org/digitalsourcetype/empty", "empty", 3),
        ("COMPOSITESYNTHETIC", "compositeSynthetic", 2),
        (
            "http://cv.iptc.org/newscodes/digitalsourcetype/compositedWithTrainedAlgorithmicMedia",
            "compositeWithTrainedAlgorithmicMedia",
            2,
        ),
        ("http://example.org/types#new\x1b", "new", 4),
        ("", "", 4),
    ],
)
def test_source_types(text, code, kind):
    found = source_type(text)
    assert found.code == code
    assert found.kind == ("capture", "ai", "ai_part", "other", "unknown")[kind]
    assert found.meaning


@pytest.mark.parametrize(
    ("code", "word", "trusted"),
    [
        ("assertion.boxesHash.mismatch", "its bytes are not those that were signed", True),
        ("assertion.missing", "lacks statements that were signed", True),
        ("claimSignature.missing", "has no signature", True),
        ("claimSignature.mismatch", "the signature does not fit", True),
        ("claimSignature.outsideValidity", "not valid at the time of signing", False),
        ("signingCredential.expired", "not valid at the time of signing", False),
        ("signingCredential.invalid", "not one for signing media", False),
        ("signingCredential.ocsp.revoked", "revoked by its issuer", False),
        ("algorithm.unsupported", "a method that is not allowed", True),
        ("com.example.new", r"does not follow the specification of C2PA \(com.example.new\)", True),
    ],
)
def test_codes_of_the_specification_in_words(code, word, trusted):
    success = ["claimSignature.validated", "signingCredential.trusted", "assertion.dataHash.match"]
    results = {
        "success": [{"code": known} for known in success],
        "failure": [{"code": code}, {"code": "signingCredential.untrusted"}, "no code", {}],
    }
    listed = {**results, "failure": results["failure"][:1]}
    stated = {"signer": "S", "issuer": None, "signed_at": None, "trust_list": "list"}
    assert signature_of(Codes.of(listed), **stated).trusted is trusted
    found = signature_of(Codes.of(results), **stated)
    assert not found.trusted
    assert found.codes == (code, "signingCredential.untrusted"), "the gravest first"
    assert re.search(word, found.problems[0])
    assert conclude(replace(manifest(), signature=found)).outcome is Outcome.BROKEN


def test_bytes_that_the_signer_left_out_are_named_and_break_nothing():
    results = {
        "success": [
            {"code": known} for known in ("claimSignature.validated", "assertion.dataHash.match")
        ],
        "informational": [{"code": "assertion.dataHash.additionalExclusionsPresent"}],
    }
    found = signature_of(
        Codes.of(results), signer="S", issuer=None, signed_at=None, trust_list="list"
    )
    assert "left parts of the file out" in found.problems[0]
    assert conclude(replace(manifest(), signature=found)).outcome is Outcome.OTHER


@pytest.mark.parametrize(
    ("name", "is_edit"),
    [("c2pa.cropped", True), ("c2pa.transcoded", False), ("c2pa.published", False), ("x.y", True)],
)
def test_only_what_changes_the_picture_counts_as_an_edit(name: str, is_edit: bool) -> None:
    captured = manifest("digitalCapture")
    actions = (*captured.actions, Action(name, action_meaning(name)))
    found = conclude(replace(captured, actions=actions))
    assert found.outcome is Outcome.CAPTURE
    assert ("edited afterwards" in found.summary) is is_edit
