"""The examples on docs/provenance.md are what is concluded from such files, word for word."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dfd_edge.provenance.outcome import conclude
from dfd_edge.provenance.record import Action, Manifest, Mark, Outcome, Provenance, Signature
from dfd_edge.provenance.source_types import action_meaning, source_type
from dfd_edge.provenance.trust import TrustList
from dfd_edge.provenance.validation import Codes, signature_of

PAGE = Path(__file__).resolve().parents[3] / "docs/provenance.md"
HOLDS = Codes(frozenset({"claimSignature.validated", "assertion.dataHash.match"}))
TRUSTED = HOLDS | Codes(frozenset({"signingCredential.trusted", "timeStamp.trusted"}))
UNTRUSTED = HOLDS | Codes(failure=frozenset({"signingCredential.untrusted"}))
CHANGED = TRUSTED | Codes(failure=frozenset({"assertion.dataHash.mismatch"}))


def signed(signer: str, codes: Codes, kind: str) -> Provenance:
    """The conclusion from a file that was created in one action."""
    signature: Signature = signature_of(
        codes,
        signer=signer,
        issuer="Example Authority",
        signed_at="2026-11-30T12:00:00Z",
        trust_list=TrustList.shipped().name,
    )
    created = "c2pa.created"
    actions = (Action(created, action_meaning(created), source_type=source_type(kind)),)
    program = f"{signer} 3.1"
    manifest = Manifest("embedded", program, None, signature, actions, (source_type(kind),))
    return conclude(manifest)


EXAMPLES = (
    signed("Example Camera Works", TRUSTED, "digitalCapture"),
    signed("Example Video Lab", TRUSTED, "trainedAlgorithmicMedia"),
    signed("Somebody", UNTRUSTED, "digitalCapture"),
    signed("Example Camera Works", CHANGED, "digitalCapture"),
    conclude(None, marks=(Mark("png.workflow", "{}", generator="ComfyUI"),)),
    conclude(None),
    conclude(None, error="the file ends too early (failed to fill whole buffer)"),
)


def test_each_outcome_has_its_example_on_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [(example.outcome.value, example.summary) for example in EXAMPLES] == rows
    assert {example.outcome for example in EXAMPLES} == {*Outcome}


def test_the_record_on_the_page_is_that_of_its_example() -> None:
    (printed,) = re.findall(r"```json\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert json.loads(printed) == json.loads(json.dumps(EXAMPLES[1].to_record()))
