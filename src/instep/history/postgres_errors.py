"""What PostgreSQL says when it refuses, or says nothing at all, in the seven families."""

from __future__ import annotations

from instep.errors import RefusedError, UnavailableError


def not_allowed(error: Exception) -> RefusedError:
    return RefusedError(
        f"PostgreSQL refused a statement ({str(error).strip().splitlines()[0]}): expected a role "
        "that owns the lake's schema, may create it, or was granted this. Nothing was changed. Ask "
        "who runs the database to grant it.",
        kind="database-permission",
    )


def disk_full(error: Exception) -> UnavailableError:
    return UnavailableError(
        f"The disk of the catalog database is full ({str(error).strip().splitlines()[0]}). Nothing "
        "was changed. Make room there, then try again.",
        kind="disk-failed",
    )


def unreachable(error: Exception, outcome: str = "") -> UnavailableError:
    """Returns what is told of a database that does not answer; a read knows no `outcome`."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
    return UnavailableError(
        f"The catalog database cannot be reached ({reason}): expected PostgreSQL at the address "
        f"in lake: of instep.yaml.{outcome} Start it, then try again.",
        kind="database-unreachable",
    )
