"""Profile: how one model is best asked, and on what evidence."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from tale_core.errors import InvalidValueError
from tale_core.policy import BudgetPolicy
from tale_core.types import Record


class Profile(Record):
    """What is known about one model: the style it obeys, a budget that works, its bounds.

    Whatever a caller names explicitly wins over the profile.
    """

    model: str = Field(min_length=1)
    """The model's name, as its server reports it."""
    style: str
    """The prompt style that the model obeys."""
    budget: int | None = Field(default=None, ge=1)
    """One budget for every question, in output tokens, where the model's own estimates are of no use; None
    leaves the estimate to the zero-shot estimator."""
    policy: BudgetPolicy = BudgetPolicy()
    """Bounds and thresholds that fit the model."""
    evidence: str = ""
    """What was measured, on how many questions; one or two sentences."""

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile from a JSON file.

        Raises:
            InvalidValueError: The file is missing, or is no profile.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as exc:
            raise InvalidValueError(f"cannot read profile {str(path)!r}: {exc.strerror}") from exc
        except ValidationError as exc:
            raise InvalidValueError.from_validation(f"profile {str(path)!r}", exc) from exc

    def save(self, path: str | Path) -> None:
        """Write the profile to a JSON file."""
        Path(path).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def find_profile(profile: Profile | str | Path | None, *, model_name: str | None = None) -> Profile | None:
    """Return the profile to use.

    Args:
        profile: A profile, the path of one, or None to look for a shipped one.
        model_name: The name of the model that will be asked, as far as it is known.

    Returns:
        The profile, or None when none was named and none is shipped for the model.
    """
    if isinstance(profile, Profile):
        return profile
    if profile is not None:
        return Profile.load(profile)
    return SHIPPED.get(model_name) if model_name is not None else None


SHIPPED: dict[str, Profile] = {
    profile.model: profile
    for profile in (
        Profile(
            model="qwen2.5-coder-1.5b-instruct-q4_k_m",
            style="exemplars",
            budget=100,
            policy=BudgetPolicy(floor=60),
            evidence="",
        ),
    )
}
"""Profiles of the models that can be embedded, by model name."""
