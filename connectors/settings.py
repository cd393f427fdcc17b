"""How settings are read: once, from a mapping that a composition root passes in, and refused in plain words.

Each package keeps its own settings class next to their user; nothing else reads the environment.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, ValidationError
from pydantic.fields import FieldInfo

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class SettingsError(ValueError):
    """Bad settings: one line each, with the setting, what was given (never a secret) and what is allowed."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


def seconds(text: str) -> float:
    """A duration as people write it (``500ms``, ``15m``, ``1h``), in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if not found:
        raise ValueError("a number with a unit: ms, s, m, h or d, such as 500ms or 15m")
    return float(found[1]) * _UNITS[found[2]]


Duration = Annotated[float, BeforeValidator(lambda given: seconds(given) if isinstance(given, str) else given)]
"""Seconds; the environment writes it with a unit."""


class Settings(BaseModel):
    """Settings of one package. Fields carry ``validation_alias="NAME_IN_THE_ENVIRONMENT"``."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True)

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Self:
        """Reads from ``env``; an empty value counts as not given. Raises `SettingsError`."""
        try:
            return cls.model_validate({name: value for name, value in env.items() if value.strip()})
        except ValidationError as error:
            raise SettingsError(_line(cls, dict(problem), env) for problem in error.errors()) from None


def _line(cls: type[BaseModel], problem: dict[str, Any], env: Mapping[str, str]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else cls.__name__
    field = next((f for f in cls.model_fields.values() if f.validation_alias == name), None)
    said = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{name} is not set: {field.description if field and field.description else 'it is required'}"
    given = "a secret, not shown" if field and _is_secret(field) else repr(_shown(env.get(name, "")))
    allowed = f"; allowed: {field.description}" if field and field.description else ""
    return f"{name} = {given}: {said[:1].lower()}{said[1:]}{allowed}"


def _shown(given: str) -> str:
    """Mask what stands before the host of an address: people put passwords there."""
    return re.sub(r"(?<=//)[^/@\s]*@", "…@", given)


def _is_secret(field: FieldInfo) -> bool:
    return "SecretStr" in str(field.annotation) or field.annotation is SecretStr
