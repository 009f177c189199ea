"""What Kafka lets us do: app/acls.py knows what a worker and a collector need, and asks."""

from collections.abc import Iterator, Mapping, Sequence

from app import acls
from app.acls import Acl
from app.doctor.finding import Finding, listed, ok, problem, warning
from app.doctor.place import Place

SEE = "docs/kafka.md#what-to-allow"


async def check(place: Place) -> list[Finding]:
    await place.admin()  # which does not wait for a Kafka that is away
    lacks = {role: await acls.missing(place.settings, role) for role in ("worker", "collector")}
    return list(judge(acls.principal(place.settings), lacks))


def judge(principal: str, lacks: Mapping[str, Sequence[Acl]]) -> Iterator[Finding]:
    """`lacks`: what is not allowed, by role. Of topics that are not there yet Kafka says nothing."""
    who = "this log-in" if principal == acls.PLACEHOLDER else principal
    missing = {role: some for role, some in lacks.items() if some}
    able = [role for role in lacks if role not in missing]
    if not missing:
        yield ok("access", f"{who} may do what a {' and a '.join(able)} does")
    for role, some in missing.items():
        said = listed([f"{', '.join(one.operations)} on {one.resource} {one.name}" for one in some])
        if able:
            yield warning(
                "access",
                f"{who} may do what a {able[0]} does, and not what a {role} does: {said}",
                f"nothing, where a {role} logs in as somebody else; else see `capistream topics acls --role {role}`",
                SEE,
            )
        else:
            yield problem(
                "access",
                f"{who} may not do what a {role} does: {said}",
                f"`capistream topics acls --role {role}` prints what grants it",
                SEE,
            )
