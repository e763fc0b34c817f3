"""Signed manifests: who signed, whether it holds, what it says; and nothing is ever fetched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("c2pa", reason="the extra `provenance` is not installed")

from cryptography import x509
from signing import (
    CLAIM_SIGNING,
    IPTC,
    TIME_STAMPING,
    TYPES,
    action,
    authority,
    served,
    sign,
    sign_and_expire,
    texts,
    time_stamps,
)

from dfd_edge import Provenance, read_provenance
from dfd_edge.errors import SourceNotFoundError, UsageError
from dfd_edge.provenance import manifests
from dfd_edge.provenance.reading import read_here
from dfd_edge.provenance.record import Outcome
from dfd_edge.provenance.trust import TrustList


@pytest.mark.parametrize("suffix", TYPES)
def test_a_signed_file_of_every_format(suffix, media, camera, trust, tmp_path):
    signed = tmp_path / f"signed.{suffix}"
    sign(media(suffix), signed, camera, actions=[action("created", "digitalCapture")])
    found = read_provenance(signed, trust_list=trust)
    assert isinstance(found, Provenance)
    assert found.manifest.where == "embedded"
    assert found.manifest.claim_generator == "Example Camera 1.2"
    assert found.manifest.title == "A clip"
    signature = found.manifest.signature
    assert (signature.signer, signature.issuer) == ("Example Cameras", "Example Root")
    assert signature.holds
    assert signature.bytes_match
    assert signature.trusted
    assert signature.problems == signature.codes == ()
    assert found.outcome is Outcome.CAPTURE
    assert [found.code for found in found.manifest.source_types] == ["digitalCapture"]


@pytest.mark.parametrize("suffix", ["mp4", "png", "mkv", "webm"])
def test_an_unsigned_file_says_nothing(suffix, media, tmp_path):
    source = media("mp4")
    if suffix in ("mkv", "webm"):  # containers that C2PA has no rule for
        path = tmp_path / f"clip.{suffix}"
        path.write_bytes(b"\x1aE\xdf\xa3" + source.read_bytes())
    else:
        path = media(suffix)
    found = read_provenance(path)
    assert found.outcome is Outcome.NOTHING
    assert found.manifest is found.remote is found.error is None


@pytest.mark.parametrize("algorithm", ["es256", "ps256", "ed25519"])
def test_every_kind_of_key(algorithm, media, root, trust, tmp_path):
    signed = tmp_path / "signed.jpg"
    sign(media("jpg"), signed, root.issue(algorithm=algorithm))
    assert read_provenance(signed, trust_list=trust).manifest.signature.trusted


def test_the_purpose_of_claim_signing_is_enough(media, root, trust, tmp_path):
    signed = tmp_path / "signed.jpg"
    sign(media("jpg"), signed, root.issue(purposes=[CLAIM_SIGNING]))
    assert read_provenance(signed, trust_list=trust).outcome is Outcome.CAPTURE


def test_a_signer_off_the_list_is_not_broken(media, camera, tmp_path):
    signed = tmp_path / "signed.jpg"
    sign(media("jpg"), signed, camera)
    found = read_provenance(signed)  # with the shipped list
    assert found.outcome is Outcome.OTHER
    signature = found.manifest.signature
    assert signature.holds
    assert signature.bytes_match
    assert not signature.trusted
    assert signature.trust_list == "C2PA trust list of 2026-09-24"
    assert signature.codes == ("signingCredential.untrusted",)
    assert "anyone can have signed" in signature.problems[0]
    assert "anyone can have signed" in found.summary


def test_an_authority_of_time_stamps_makes_no_signer_trusted(media, camera, root, tmp_path):
    signed = tmp_path / "signed.jpg"
    sign(media("jpg"), signed, camera)
    other = authority("Another Root").pem.decode()
    found = read_provenance(signed, trust_list=TrustList("test", other, root.pem.decode()))
    assert not found.manifest.signature.trusted
    assert found.outcome is Outcome.OTHER


def test_an_authority_on_both_lists_makes_its_signers_trusted(media, camera, root, tmp_path):
    """The parser finds it on either list, by chance."""
    signed = tmp_path / "signed.jpg"
    sign(media("jpg"), signed, camera)
    both = root.pem.decode()
    found = {read_here(signed, TrustList(f"{n}", both, both)).outcome for n in range(12)}
    assert found == {Outcome.CAPTURE}


def test_a_signer_on_the_list_itself(media, camera, tmp_path):
    signed = tmp_path / "signed.jpg"
    sign(media("jpg"), signed, camera)
    listed = tmp_path / "camera.pem"
    listed.write_bytes(camera.pem)
    assert read_provenance(signed, trust_list=listed).manifest.signature.trusted


@pytest.mark.parametrize("suffix", ["mp4", "jpg", "heic"])
@pytest.mark.parametrize("name", ["clip.c2pa", "clip.{}.c2pa"])
def test_a_sidecar(suffix, name, media, camera, trust, tmp_path):
    clip = tmp_path / f"clip.{suffix}"
    store = sign(media(suffix), clip, camera, embedded=False)
    assert clip.read_bytes() == media(suffix).read_bytes()
    (tmp_path / name.format(suffix)).write_bytes(store)
    found = read_provenance(clip, trust_list=trust)
    assert found.outcome is Outcome.CAPTURE
    assert found.manifest.where == "sidecar"
    clip.write_bytes(media(suffix).read_bytes()[:-1] + b"\x01")
    found = read_provenance(clip, trust_list=trust)
    assert found.outcome is Outcome.BROKEN
    assert "sidecar was signed for another file" in found.summary


def test_the_manifest_inside_counts_before_the_sidecar(media, camera, root, trust, tmp_path):
    clip = tmp_path / "clip.jpg"
    other = sign(media("jpg"), clip, root.issue("Another"), embedded=False)
    sign(media("jpg"), clip, camera)
    (tmp_path / "clip.c2pa").write_bytes(other)
    found = read_provenance(clip, trust_list=trust)
    assert found.manifest.where == "embedded"
    assert found.manifest.signature.signer == "Example Cameras"


def test_a_large_sidecar_is_not_read(media, tmp_path):
    clip = tmp_path / "clip.jpg"
    clip.write_bytes(media("jpg").read_bytes())
    with (tmp_path / "clip.c2pa").open("wb") as sidecar:
        sidecar.truncate((32 << 20) + 1)
    found = read_provenance(clip)
    assert found.outcome is Outcome.ERROR
    assert "clip.c2pa is larger than 32 MB" in found.error


def test_a_name_too_long_for_a_sidecar(media, camera, trust, tmp_path):
    clip = tmp_path / f"{'n' * 248}.jpg"
    sign(media("jpg"), clip, camera)
    assert read_provenance(clip, trust_list=trust).outcome is Outcome.CAPTURE
    clip.write_bytes(media("jpg").read_bytes())
    assert read_provenance(clip, trust_list=trust).outcome is Outcome.NOTHING


@pytest.mark.parametrize("suffix", ["mp4", "jpg", "png", "webp"])
def test_nothing_is_fetched(suffix, media, root, trust, tmp_path):
    """Neither a manifest kept elsewhere, nor the state or the issuer of a certificate."""
    asked = []

    def refused(path, _):
        asked.append(path)
        return b""

    with served(refused) as address:
        authorities = [
            x509.AccessDescription(method, x509.UniformResourceIdentifier(f"{address}/{path}"))
            for method, path in (
                (x509.AuthorityInformationAccessOID.OCSP, "ocsp"),
                (x509.AuthorityInformationAccessOID.CA_ISSUERS, "issuer"),
            )
        ]
        revoked = x509.DistributionPoint(
            [x509.UniformResourceIdentifier(f"{address}/revoked")], None, None, None
        )
        extensions = [
            x509.AuthorityInformationAccess(authorities),
            x509.CRLDistributionPoints([revoked]),
        ]
        signer = root.issue(extensions=extensions)
        remote = f"{address}/manifest.c2pa"
        clip = tmp_path / f"clip.{suffix}"
        sign(media(suffix), clip, signer, remote=remote, embedded=False)
        found = read_provenance(clip, trust_list=trust)
        assert found.outcome is Outcome.NOTHING
        assert found.remote == remote
        assert remote in found.summary
        assert found.manifest is None
        sign(media(suffix), clip, signer, remote=remote)
        assert read_provenance(clip, trust_list=trust).outcome is Outcome.CAPTURE
    assert asked == []


@pytest.fixture(scope="module")
def stamped(root, media, tmp_path_factory):
    """Files signed by certificates that expire soon after, with and without a time stamp."""
    folder = tmp_path_factory.mktemp("stamped")
    stamper = root.issue("Example Stamps", purposes=[TIME_STAMPING])
    with time_stamps(folder, stamper, root) as address:
        lasting = root.issue()
        sign(media("jpg"), folder / "lasting.jpg", lasting, stamps=address)

        def use(brief):
            sign(media("jpg"), folder / "plain.jpg", brief)
            sign(media("jpg"), folder / "stamped.jpg", brief, stamps=address)
            for name in ("plain", "stamped"):
                wrapped(folder / f"{name}.jpg", folder / f"from_{name}.jpg", lasting)

        sign_and_expire(root, use)
    return folder


def test_a_time_stamp_dates_the_signature(stamped, trust):
    signature = read_provenance(stamped / "lasting.jpg", trust_list=trust).manifest.signature
    assert signature.time_stamped
    signed_at = datetime.fromisoformat(signature.signed_at)
    assert signature.signed_at.endswith("Z")
    assert abs(datetime.now(UTC) - signed_at) < timedelta(minutes=5)
    found = read_provenance(stamped / "lasting.jpg", trust_list=trust)
    assert f"on {signature.signed_at[:10]}" in found.summary


def test_a_certificate_that_expired_since_needs_a_time_stamp(stamped, trust):
    found = read_provenance(stamped / "plain.jpg", trust_list=trust)
    assert found.outcome is Outcome.BROKEN
    assert "signingCredential.expired" in found.manifest.signature.codes
    assert "no trusted time stamp" in found.summary
    assert found.manifest.signature.holds
    assert found.manifest.signature.bytes_match
    found = read_provenance(stamped / "stamped.jpg", trust_list=trust)
    assert found.outcome is Outcome.CAPTURE


def test_an_untrusted_time_stamp_dates_nothing(stamped, media, root, tmp_path):
    """Else the holder of an expired certificate could date a signature back."""
    other = authority("Another Root").pem.decode()
    trust = TrustList("test", signers=root.pem.decode(), time_stampers=other)
    # The authority for signers is taken for one of time stamps as well: the stamp needs another.
    stranger = authority("Stranger")
    folder = tmp_path
    stamper = stranger.issue("Strange Stamps", purposes=[TIME_STAMPING])
    with time_stamps(folder, stamper, stranger) as address:
        sign(media("jpg"), folder / "lasting.jpg", root.issue(), stamps=address)
        sign_and_expire(
            root, lambda brief: sign(media("jpg"), folder / "brief.jpg", brief, stamps=address)
        )
    lasting = read_provenance(folder / "lasting.jpg", trust_list=trust)
    assert lasting.outcome is Outcome.CAPTURE
    assert not lasting.manifest.signature.time_stamped
    found = read_provenance(folder / "brief.jpg", trust_list=trust)
    assert found.outcome is Outcome.BROKEN
    assert not found.manifest.signature.trusted
    assert "signingCredential.expired" in found.manifest.signature.codes


def test_actions_in_order(media, camera, trust, tmp_path):
    signed = tmp_path / "signed.jpg"
    actions = [
        action("created", "computationalCapture", when="2026-03-01T10:00:00+02:00"),
        action("color_adjustments", softwareAgent={"name": "Editor", "version": "9"}),
        action("transcoded", when="yesterday"),
        {"action": "com.example.shaken", "softwareAgent": {"name": "Shaker"}},
    ]
    sign(media("jpg"), signed, camera, actions=actions)
    found = read_provenance(signed, trust_list=trust)
    assert found.outcome is Outcome.CAPTURE
    assert "edited afterwards" in found.summary
    first, second, third, fourth = found.manifest.actions
    assert (first.name, first.when) == ("c2pa.created", "2026-03-01T08:00:00Z")
    assert first.source_type.kind == "capture"
    assert (second.meaning, second.software) == ("colours were adjusted", "Editor 9")
    assert (third.meaning, third.when) == ("transcoded", None)
    assert fourth.name == "com.example.shaken"
    assert "outside the vocabulary" in fourth.meaning


def test_ingredients_as_a_tree(media, camera, root, trust, tmp_path):
    """A film cut from a picture of AI and from a camera's film, which had a picture in it."""
    generated, shot, cut = (tmp_path / name for name in ("ai.png", "shot.mp4", "cut.mp4"))
    studio = root.issue("Example Generator")
    sign(media("png"), generated, studio, actions=[action("created", "trainedAlgorithmicMedia")])
    opened = [
        action("created", "digitalCapture"),
        action("placed", parameters={"ingredientIds": ["logo"]}),
    ]
    logo = {"title": "logo", "relationship": "componentOf", "label": "logo"}
    sign(media("mp4"), shot, camera, actions=opened, ingredients=[(logo, media("webp"))])
    edits = [
        action("opened", parameters={"ingredientIds": ["shot"]}),
        action("placed", parameters={"ingredientIds": ["ai"]}),
    ]
    ingredients = [
        ({"title": "shot", "relationship": "parentOf", "label": "shot"}, shot),
        ({"title": "ai", "relationship": "componentOf", "label": "ai"}, generated),
    ]
    sign(media("mp4"), cut, root.issue("Editors"), actions=edits, ingredients=ingredients)
    found = read_provenance(cut, trust_list=trust)
    assert found.outcome is Outcome.AI
    assert "something that AI generated went into it" in found.summary
    parent, part = found.manifest.ingredients
    assert (parent.title, parent.relationship, parent.state) == ("shot", "parentOf", "signed")
    assert parent.signer == "Example Cameras"
    assert parent.format == "video/mp4"
    assert [node.title for node in parent.ingredients] == ["logo"]
    assert parent.ingredients[0].state == "unsigned"
    assert (part.signer, part.source_types[0].kind) == ("Example Generator", "ai")
    assert not found.manifest.cut


PARENT = {"title": "parent", "relationship": "parentOf", "label": "parent"}
OPENED = action("opened", parameters={"ingredientIds": ["parent"]})


def wrapped(source, target, signer, *parts, settings=None):
    """Signs a file that comes from another one and further parts."""
    sign(
        *(source, target, signer),
        actions=[OPENED],
        ingredients=[(PARENT, source), *parts],
        settings=settings,
    )


def test_the_name_on_an_untrusted_parent_is_only_claimed(media, root, trust, tmp_path):
    claimed, signed = tmp_path / "claimed.jpg", tmp_path / "signed.jpg"
    sign(media("jpg"), claimed, authority("Own Root").issue("Leica"))
    wrapped(claimed, signed, root.issue("Editors"))
    found = read_provenance(signed, trust_list=trust)
    assert found.manifest.signature.trusted
    (parent,) = found.manifest.ingredients
    assert (parent.state, parent.signer, parent.trusted) == ("signed", "Leica", False)
    assert "that Leica signed" not in found.summary
    assert "in the name of Leica, which anyone can have done" in found.summary


@pytest.mark.parametrize(("name", "is_trusted"), [("stamped", True), ("plain", False)])
def test_a_parent_whose_certificate_expired_since(name, is_trusted, stamped, trust):
    found = read_provenance(stamped / f"from_{name}.jpg", trust_list=trust)
    assert found.manifest.signature.trusted
    (parent,) = found.manifest.ingredients
    assert parent.trusted is is_trusted
    assert ("It comes from a file that Brief signed" in found.summary) is is_trusted


@pytest.mark.parametrize("is_outer", [True, False])
def test_an_authority_for_time_stamps_vouches_for_no_signer(is_outer, media, root, tmp_path):
    """Whether the other signer of the file is listed, or not."""
    stamps = authority("Stamp Root")
    trust = TrustList("test", signers=root.pem.decode(), time_stampers=stamps.pem.decode())
    source, signed = tmp_path / "source.jpg", tmp_path / "signed.jpg"
    sign(media("jpg"), source, (root if is_outer else stamps).issue("Inner"))
    wrapped(source, signed, (stamps if is_outer else root).issue("Outer"))
    found = read_provenance(signed, trust_list=trust).manifest
    assert found.signature.trusted is not is_outer
    assert found.ingredients[0].trusted is is_outer


def test_what_a_stranger_recorded_of_a_signer_is_not_believed(media, root, trust, tmp_path):
    """The parser reports no news of an ingredient that another record has found untrusted."""
    own = authority("Own Root")
    claimed, middle, signed = (tmp_path / f"{name}.jpg" for name in ("claimed", "middle", "signed"))
    sign(media("jpg"), claimed, own.issue("Leica"))
    believed = {
        "verify": {"verify_after_sign": False, "verify_trust": True},
        "trust": {
            "anchors": [
                {"trust_kind": "manifest", "trust_uri": "x", "trust_anchors": own.pem.decode()}
            ],
            "trust_config": manifests._PURPOSES,
        },
    }
    wrapped(claimed, middle, own.issue("Middle"), settings=believed)
    part = {"title": "part", "relationship": "componentOf", "label": "part"}
    wrapped(middle, signed, root.issue("Editors"), (part, claimed))
    parent, part = read_provenance(signed, trust_list=trust).manifest.ingredients
    (below,) = parent.ingredients
    assert {node.signer for node in (part, below)} == {"Leica"}
    assert not any(node.trusted for node in (parent, part, below))


def test_an_update_keeps_the_bytes_of_its_parent(media, camera, root, trust, tmp_path):
    """A manifest that only adds statements binds no bytes itself: those of its parent count."""
    shot, updated = tmp_path / "shot.jpg", tmp_path / "updated.jpg"
    sign(media("jpg"), shot, camera)
    sign(shot, updated, root.issue("Example Archive"), is_update=True)
    found = read_provenance(updated, trust_list=trust)
    assert found.manifest.signature.signer == "Example Archive"
    assert found.manifest.signature.bytes_match
    assert found.outcome is Outcome.OTHER
    assert "comes from a file that Example Cameras signed as taken with a camera" in found.summary
    data = updated.read_bytes()
    updated.write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    found = read_provenance(updated, trust_list=trust)
    assert found.outcome is Outcome.BROKEN
    assert found.manifest.signature.bytes_match is False


def test_a_deep_tree_is_cut(media, camera, trust, tmp_path):
    newest = media("jpg")
    for depth in range(manifests.DEEPEST + 2):
        signed = tmp_path / f"{depth}.jpg"
        parent = {"title": str(depth), "relationship": "parentOf", "label": "parent"}
        opened = action("opened", parameters={"ingredientIds": ["parent"]})
        sign(newest, signed, camera, actions=[opened], ingredients=[(parent, newest)])
        newest = signed
    found = read_provenance(newest, trust_list=trust)
    assert found.manifest.signature.holds
    assert found.manifest.cut
    depth, nodes = 0, found.manifest.ingredients
    while nodes:
        depth, nodes = depth + 1, nodes[0].ingredients
    assert depth == manifests.DEEPEST


def test_many_actions_and_ingredients_are_cut(media, camera, trust, tmp_path, monkeypatch):
    # Read in this process, in which the limits are changed.
    monkeypatch.setattr(manifests, "MOST_ACTIONS", 3)
    signed = tmp_path / "signed.jpg"
    sign(media("jpg"), signed, camera, actions=[action("created"), *[action("edited")] * 3])
    found = read_here(signed, trust)
    assert len(found.manifest.actions) == 3
    assert found.manifest.cut
    monkeypatch.setattr(manifests, "MOST_INGREDIENTS", 2)
    parts = [({"title": str(n), "relationship": "inputTo"}, media("png")) for n in range(3)]
    sign(media("jpg"), signed, camera, actions=[action("created")], ingredients=parts)
    found = read_here(signed, trust)
    assert len(found.manifest.ingredients) == 2
    assert found.manifest.cut


INVENTED = [action("edited", f"invented{number}") for number in range(60)]


def test_invented_source_types_hide_no_ai(media, camera, trust, tmp_path):
    signed, newer = tmp_path / "signed.jpg", tmp_path / "newer.jpg"
    edited = action("edited", "compositeWithTrainedAlgorithmicMedia")
    captured = action("created", "digitalCapture")
    sign(media("jpg"), signed, camera, actions=[captured, *INVENTED, edited])
    found = read_provenance(signed, trust_list=trust)
    assert found.outcome is Outcome.AI
    assert found.manifest.cut
    codes = [known.code for known in found.manifest.source_types]
    assert codes[:3] == ["digitalCapture", "compositeWithTrainedAlgorithmicMedia", "invented0"]
    wrapped(signed, newer, camera)
    found = read_provenance(newer, trust_list=trust)
    assert found.outcome is Outcome.AI
    assert found.manifest.cut


def test_actions_that_are_not_kept_hide_no_ai(media, camera, trust, tmp_path):
    signed = tmp_path / "signed.jpg"
    many = [action("edited")] * manifests.MOST_ACTIONS
    edited = action("edited", "compositeSynthetic")
    sign(media("jpg"), signed, camera, actions=[action("created", "print"), *many, edited])
    found = read_provenance(signed, trust_list=trust)
    assert found.manifest.cut
    assert found.outcome is Outcome.AI


def test_a_circle_of_ingredients_is_cut():
    """The parser reads the labels from the file; here they name each other."""
    entry = {"relationship": "parentOf", "title": "same"}
    store = {
        "a": {"ingredients": [{**entry, "active_manifest": "b"}]},
        "b": {"ingredients": [{**entry, "active_manifest": "a"}]},
    }
    tree = manifests.Tree(store, {})
    (node,) = tree.ingredients_of("a")
    (again,) = node.ingredients
    assert again.ingredients == ()
    assert tree.cut


def test_a_source_type_in_signed_metadata_counts(media, camera, trust, tmp_path):
    signed = tmp_path / "signed.jpg"
    metadata = {
        "label": "cawg.metadata",
        "data": {
            "@context": {"Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"},
            "Iptc4xmpExt:DigitalSourceType": f"{IPTC}compositeSynthetic",
        },
    }
    drawn = action("created", "digitalCreation")
    sign(media("jpg"), signed, camera, actions=[drawn], assertions=[metadata])
    found = read_provenance(signed, trust_list=trust)
    assert found.outcome is Outcome.AI
    codes = [known.code for known in found.manifest.source_types]
    assert codes == ["digitalCreation", "compositeSynthetic"]


HOSTILE = "\x1b[31mEvil\u202e\r\n<b>&\x00" + "x" * 5000


def test_texts_of_the_file_come_out_clean_and_cut(media, root, trust, tmp_path):
    signed = tmp_path / "signed.jpg"
    signer = root.issue(organisation=None, name="\x1b[31mEvil\u202e\r\n<b>&")
    agent = {"name": HOSTILE, "version": HOSTILE}
    first = action("created", "digitalCapture", softwareAgent=agent)
    actions = [first, {"action": HOSTILE, "softwareAgent": agent}]
    sign(media("jpg"), signed, signer, actions=actions, title=HOSTILE, generator=HOSTILE)
    found = read_provenance(signed, trust_list=trust)
    assert found.manifest.signature.signer == "[31mEvil <b>&"
    all_texts = list(texts(found.to_record()))
    assert len(all_texts) > 15
    for text in all_texts:
        assert text.isprintable(), text
        assert len(text) < 600, text


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, r"cannot be read \(No such file"),
        (b"", "holds no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "certificate 1 in it is"),
        (b"\0" * ((4 << 20) + 1), "larger than 4 MB"),
    ],
)
def test_a_trust_list_that_cannot_be_read(content, cause, media, tmp_path):
    path = tmp_path / "list.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=cause) as raised:
        read_provenance(media("png"), trust_list=path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_trust_list_is_named_by_its_file_and_date(trust_file):
    assert TrustList.load(trust_file).name == f"list.pem of {datetime.now(UTC):%Y-%m-%d}"


def test_a_missing_file():
    with pytest.raises(SourceNotFoundError, match="no such file"):
        read_provenance("missing.mp4")
