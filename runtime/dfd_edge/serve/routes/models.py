"""Bodies of requests and answers, as OpenAPI describes them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from dfd_edge.serve.judging.store import Judgement, State
from dfd_edge.serve.routes.problems import MEDIA_TYPE


class Progress(BaseModel):
    """Progress of a judgement that runs."""

    done_s: float = Field(description="Seconds of the film that are done.")
    total_s: float | None = Field(description="Its length in seconds, where that is known.")
    left_s: float | None = Field(description="About how many seconds the rest takes.")


class ProblemModel(BaseModel):
    """An error, as in RFC 9457."""

    type: str
    title: str
    detail: str
    status: int | None = None


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the errors of a route, for OpenAPI."""
    described = {"model": ProblemModel, "content": {MEDIA_TYPE: {}}}
    return {status: described for status in statuses}  # noqa: C420 - one object for all is meant


class JudgementError(BaseModel):
    """Error of a judgement that failed."""

    type: str
    title: str
    detail: str


class Links(BaseModel):
    """Addresses of what belongs to a judgement."""

    model_config = ConfigDict(populate_by_name=True)

    self_: str = Field(serialization_alias="self", validation_alias="self")
    records: str
    evidence: str
    events: str
    media: str
    report: str
    page: str


class JudgementModel(BaseModel):
    """A judgement."""

    model_config = ConfigDict(serialize_by_alias=True)

    id: str
    state: State
    name: str = Field(description="Name of the file as it was sent.")
    sha256: str
    bytes: int
    submitted_at: str = Field(description="RFC 3339, UTC; so are the other times.")
    started_at: str | None
    finished_at: str | None
    position: int | None = Field(description="Place in the queue, from 1, while it waits.")
    starts_in_s: float | None = Field(
        description="About how many seconds it still waits, where earlier ones tell."
    )
    progress: Progress | None = Field(description="While it runs.")
    verdict: dict[str, Any] | None = Field(
        description="The `verdict` record of records.schema.json, once it is done."
    )
    error: JudgementError | None = Field(description="Where it failed.")
    provenance: dict[str, Any] | None = Field(
        description="What the file says of its own origin, as in records.schema.json: the same as "
        "in the verdict, and there where it failed too. Null without --provenance."
    )
    note: str
    bundle: str = Field(description="Hash of the bundle that judges.")
    version: str
    media_kept: bool = Field(description="Whether the original is still there.")
    links: Links

    @classmethod
    def of(
        cls,
        judgement: Judgement,
        *,
        position: int | None,
        progress: dict[str, float | None] | None,
        starts_in_s: float | None,
    ) -> JudgementModel:
        """Returns the model of a stored judgement.

        Args:
            judgement: It.
            position: Its place in the queue.
            progress: Its progress, while it runs.
            starts_in_s: About how long it waits.
        """
        own = f"/v1/judgements/{judgement.id}"
        return cls(
            id=judgement.id,
            state=judgement.state,
            name=judgement.name,
            sha256=judgement.sha256,
            bytes=judgement.bytes,
            submitted_at=judgement.submitted_at,
            started_at=judgement.started_at,
            finished_at=judgement.finished_at,
            position=position,
            starts_in_s=starts_in_s,
            progress=None if progress is None else Progress.model_validate(progress),
            verdict=judgement.verdict,
            error=None if judgement.error is None else JudgementError(**judgement.error),
            provenance=judgement.provenance,
            note=judgement.note,
            bundle=judgement.bundle,
            version=judgement.version,
            media_kept=judgement.media is not None,
            links=Links(
                self_=own,
                records=f"{own}/records",
                evidence=f"{own}/evidence",
                events=f"{own}/events",
                media=f"{own}/media",
                report=f"{own}/report",
                page=f"/judgements/{judgement.id}",
            ),
        )


class JudgementList(BaseModel):
    """Judgements, the newest first."""

    judgements: list[JudgementModel]
    next: str | None = Field(description="Cursor of the next ones, for `before`.")


class Note(BaseModel):
    """A changed note."""

    note: Annotated[str, Field(max_length=10_000)]


class Address(BaseModel):
    """An address to fetch a file from."""

    address: Annotated[str, Field(min_length=1, max_length=4096)]
