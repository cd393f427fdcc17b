"""Base classes of settings: read once from a mapping that the caller passes in, with readable error messages.

Each package keeps its own settings class next to its user. The classes are pydantic-settings classes with a single
source, the values passed in, so none of them reads the process environment or a file.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args, get_origin
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from connectors import ports
from schemas.integrations import CheckResult, CheckStatus, IntegrationMode

USER_AGENT: Final = f"RentStream/{version('rentstream')}"
USER_AGENT_PATTERN: Final = r"^[\x21-\x7e]([\x20-\x7e]{0,198}[\x21-\x7e])?$"

ALLOW_PRIVATE_DESCRIPTION: Final = "1 or 0: whether plain http and private addresses may be called"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class SettingsError(ValueError):
    """Invalid settings, one line each: the setting, its value (never that of a secret) and the allowed values."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


def seconds(text: str) -> float:
    """Return a duration with a unit (``500ms``, ``15m``, ``1h``) in seconds. Raise `ValueError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if not found:
        raise ValueError("it is not a number with a unit (ms, s, m, h or d)")
    return float(found[1]) * _UNITS[found[2]]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone") from None
    return name


def _cron(text: str) -> str:
    if len(text.split()) != 5:
        raise ValueError("it does not have five fields")
    try:
        next(CronSim(text, datetime(2000, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(str(error)) from None
    except StopIteration:
        raise ValueError("it names no date that exists") from None
    return text


def _split(value: Any) -> Any:
    """Split the text of the environment; the secrets of a stored configuration are separate already."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return tuple(part for part in re.split(r"[,\s]+", value) if part) if isinstance(value, str) else value


Several: Final = BeforeValidator(_split)
"""Reads several secrets: in the environment they are separated by commas or spaces."""

Duration = Annotated[float, BeforeValidator(lambda value: seconds(value) if isinstance(value, str) else value)]
"""Seconds; in the environment a number with a unit."""

Cron = Annotated[str, AfterValidator(_cron)]
"""Five fields of cron."""

Zone = Annotated[str, AfterValidator(_zone)]
"""IANA name of a time zone."""


class Settings(BaseSettings):
    """Settings of one package. Fields carry ``validation_alias="NAME_IN_THE_ENVIRONMENT"``."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
        validate_default=False,  # a field whose default has to be validated (a key, a password) overrides this
    )

    @classmethod
    def settings_customise_sources(  # the signature is that of pydantic-settings
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use the values passed in, and no other source."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Self:
        """Read the settings from ``env``; an empty value counts as not set. Raise `SettingsError`."""
        # Only the aliases are looked up: a variable of the environment that is called `url` is not a setting.
        names = [str(field.validation_alias) for field in cls.model_fields.values() if field.validation_alias]
        if quoted := [name for name in names if is_quoted(env.get(name, ""))]:
            raise SettingsError(
                f"{name} is in quotes, which `docker --env-file` and Kubernetes take as part of the value: remove them"
                for name in quoted
            )
        try:
            return cls.model_validate({name: env[name] for name in names if is_given(env, name)})
        except ValidationError as error:
            raise SettingsError(_line(cls, dict(problem), env) for problem in error.errors()) from None


def is_quoted(value: str) -> bool:
    """Return whether a value has quotes around it. A `.env` file is read without them."""
    text = value.strip()
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"


def is_given(env: Mapping[str, str], name: str) -> bool:
    """Return whether a setting has a value; an empty one counts as not set."""
    return bool(env.get(name, "").strip())


def mask(value: str) -> str:
    """Mask what may be secret in a URL: the user info, and the query."""
    return re.sub(r"(?<=//)\S*@", "…@", re.sub(r"(?<=\S)\?\S*", "?…", value) if "://" in value else value)


def _line(cls: type[Settings], problem: dict[str, Any], env: Mapping[str, str]) -> str:
    field = cls.model_fields[_field_name(cls, problem)]
    name = str(field.validation_alias)
    if problem["type"] == "missing":
        return f"{name} is not set: {field.description or 'it is required'}"
    value = "a secret, not shown" if _is_secret(field) else repr(mask(env.get(name, "")))
    return f"{name} = {value}: {_sentence(field, problem)}"


def _sentence(field: FieldInfo, problem: dict[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    allowed = f"; allowed: {field.description}" if field.description else ""
    return f"{message[:1].lower()}{message[1:]}{allowed}"


def _field_name(cls: type[Settings], problem: dict[str, Any]) -> str:
    """Return the name of the field with a problem, which pydantic reports by its name or by its alias."""
    reported = str(problem["loc"][0])
    return next(name for name, field in cls.model_fields.items() if reported in {name, field.validation_alias})


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in _types(field.annotation)


def _types(annotation: object) -> set[type]:
    """Return the types in an annotation, without generics and unions; of a literal those of its values."""
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    if isinstance(annotation, type) and not get_args(annotation):
        return {annotation}
    return {one for part in get_args(annotation) for one in _types(part)}


# ------------------------------------------------------------------------------------------- settings of a connection


OfferedUnits = Literal["vacant", "listed"]


class ProcessSettings(Settings):
    """Settings that apply to every connection of a process, of the environment or stored."""

    allow_private: bool = Field(
        False, validation_alias="RENTSTREAM_ALLOW_PRIVATE", description=ALLOW_PRIVATE_DESCRIPTION
    )
    timezone: Zone = Field(
        "UTC", validation_alias="RENTSTREAM_TIMEZONE", description="an IANA name such as America/Edmonton"
    )
    """The time zone of connections without their own."""
    offer: OfferedUnits = Field("vacant", validation_alias="RENTSTREAM_OFFER", description="vacant or listed")
    """Which units connections without their own setting offer: all vacant ones and those on notice, or listed ones."""
    auto_move_out_days: int = Field(
        60, validation_alias="RENTSTREAM_AUTO_MOVE_OUT_DAYS", ge=0, le=3650, description="a number of days, 0-3650"
    )
    """From how many days before its end on a lease with automatic move-out counts as on notice."""
    user_agent: str = Field(
        USER_AGENT,
        validation_alias="RENTSYNC_USER_AGENT",
        description="a product and version such as RentStream/1.0, in plain ASCII",
        pattern=USER_AGENT_PATTERN,
    )


@dataclass(frozen=True, slots=True)
class Stored:
    """Marks a field that a stored configuration may also contain."""

    name: str
    """The name in the stored configuration, in camelCase."""
    kind: Literal["setting", "secret"] = "setting"
    required: bool = False
    """Whether a connection needs the field, although the settings class is valid without it."""
    several: bool = False
    tuning: bool = False
    """Whether the field only tunes calls: if nothing else is set, the environment describes no connection."""


_JSON_NAMES: Final[Mapping[type, str]] = {str: "text", int: "a whole number", bool: "true or false"}


class ConnectionSettings(Settings):
    """Settings of one connection, from the environment or from a stored `connectors.ports.Configuration`.

    A field is declared once: its name in the environment (``validation_alias``), its name in a configuration (`Stored`)
    and the allowed values (``description``). A field without `Stored` belongs to the process.
    """

    LATER: ClassVar[frozenset[str]] = frozenset()
    """Documented names that are not available yet; a configuration with one of them is rejected with that reason."""

    allow_private: bool = Field(
        default=False,
        validation_alias="RENTSTREAM_ALLOW_PRIVATE",
        description=ALLOW_PRIVATE_DESCRIPTION,
    )

    @classmethod
    def port_fields(cls) -> tuple[ports.Field, ...]:
        """Return the fields of a configuration, for messages and for the API."""
        return tuple(
            ports.Field(
                name=stored.name,
                env=str(field.validation_alias),
                kind=stored.kind,
                description=field.description or "",
                required=stored.required or field.is_required(),
                several=stored.several,
                default=field.get_default() if stored.kind == "setting" and not field.is_required() else None,
            )
            for field, stored in _stored(cls).values()
        )

    @classmethod
    def is_described(cls, env: Mapping[str, str]) -> bool:
        """Return whether ``env`` describes a connection, complete or not."""
        return any(
            is_given(env, str(field.validation_alias)) for field, stored in _stored(cls).values() if not stored.tuning
        )

    @classmethod
    def read_complete(cls, env: Mapping[str, str]) -> Self:
        """Read a connection that can be used. Raise `SettingsError` with a line for each missing or invalid setting."""
        lines = [
            f"{field.validation_alias} is not set: {field.description}"
            for field, stored in _stored(cls).values()
            if stored.required and not is_given(env, str(field.validation_alias))
        ]
        try:
            settings = cls.read(env)
        except SettingsError as error:
            raise SettingsError((*lines, *error.lines)) from None
        if lines:
            raise SettingsError(lines)
        return settings

    @classmethod
    def of(cls, configuration: ports.Configuration, **process: Any) -> Self:
        """Read a stored configuration, with the fields of the process in ``process``. Raise `SettingsError`."""
        if wrong := cls.errors(configuration, **process):
            raise SettingsError(f"{one.pointer}: {one.detail}" for one in wrong)
        return cls.model_validate({**process, **_translated(cls, configuration)[0]})

    @classmethod
    def some_of(cls, configuration: ports.Configuration, names: Collection[str]) -> Self:
        """Read these settings of a stored configuration, whatever is wrong with the rest. Raise `SettingsError`."""
        some = ports.Configuration({name: one for name, one in configuration.settings.items() if name in names})
        wrong = [one for one in cls.errors(some) if one.pointer.startswith("/settings/")]
        if wrong:
            raise SettingsError(f"{one.pointer}: {one.detail}" for one in wrong)
        return cls.model_validate(_translated(cls, some)[0])

    @classmethod
    def errors(cls, configuration: ports.Configuration, **process: Any) -> tuple[ports.FieldError, ...]:
        """Return every error of a stored configuration."""
        data, found = _translated(cls, configuration)
        fields = _stored(cls)
        found += [
            ports.FieldError(pointer(stored), f"it is required: {field.description}")
            for name, (field, stored) in fields.items()
            if stored.required and name not in data
        ]
        try:
            cls.model_validate({**process, **data})
        except ValidationError as error:
            for problem in error.errors():
                field, stored = fields[_field_name(cls, dict(problem))]
                missing = problem["type"] == "missing"
                detail = f"it is required: {field.description}" if missing else _sentence(field, dict(problem))
                found.append(ports.FieldError(pointer(stored), detail))
        # A value of the wrong type was left out and would be reported as missing too; the first error is kept.
        first: dict[str, ports.FieldError] = {}
        for one in found:
            first.setdefault(one.pointer, one)
        return tuple(first.values())

    def configuration(self, mode: IntegrationMode = IntegrationMode.PRODUCTION) -> ports.Configuration:
        """Return the values that were set explicitly, in the form of a stored configuration."""
        settings: dict[str, Any] = {}
        secrets: dict[str, tuple[SecretStr, ...]] = {}
        for name, (_, stored) in _stored(type(self)).items():
            if name not in self.model_fields_set:
                continue
            value = getattr(self, name)
            if stored.kind == "setting":
                settings[stored.name] = value
            else:
                secrets[stored.name] = value if stored.several else (value,)
        return ports.Configuration(settings, secrets, mode)


def refused(wrong: Sequence[ports.FieldError]) -> ports.Checked:
    """Return the outcome of a connection test that could not start because the configuration is invalid."""
    detail = "; ".join(f"{one.pointer}: {one.detail}" for one in wrong)
    result = CheckResult(
        name="settings", status=CheckStatus.FAILED, milliseconds=0, detail=detail, fix="Change these settings."
    )
    return ports.Checked((result,))


def pointer(stored: Stored) -> str:
    """Return the JSON pointer to a field of a configuration."""
    return _pointer(stored.kind, stored.name)


def _pointer(kind: Literal["setting", "secret"], name: str) -> str:
    return f"/{kind}s/{name.replace('~', '~0').replace('/', '~1')}"


def _stored(cls: type[ConnectionSettings]) -> Mapping[str, tuple[FieldInfo, Stored]]:
    """Return the fields of a stored configuration, by the name of the field in the class."""
    return {
        name: (field, mark)
        for name, field in cls.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Stored)
    }


def _translated(
    cls: type[ConnectionSettings], configuration: ports.Configuration
) -> tuple[dict[str, Any], list[ports.FieldError]]:
    """Return the values of a configuration by field, and the errors in its names and JSON types."""
    by_name = {stored.name: (name, field, stored) for name, (field, stored) in _stored(cls).items()}
    data: dict[str, Any] = {}
    found: list[ports.FieldError] = []
    items: list[tuple[Literal["setting", "secret"], str, Any]] = [
        *(("setting", name, value) for name, value in configuration.settings.items()),
        *(("secret", name, values) for name, values in configuration.secrets.items() if values),
    ]
    for kind, stored_name, value in items:
        known = by_name.get(stored_name)
        if known is None or known[2].kind != kind:
            found.append(ports.FieldError(_pointer(kind, stored_name), _unknown(cls, kind, stored_name)))
            continue
        name, field, stored = known
        wrong = _wrong_type(field, value) if kind == "setting" else _wrong_secret(stored, value)
        if wrong:
            found.append(ports.FieldError(pointer(stored), f"{wrong}; allowed: {field.description}"))
        else:
            data[name] = value if kind == "setting" or stored.several else value[0]
    return data, found


def _unknown(cls: type[ConnectionSettings], kind: Literal["setting", "secret"], name: str) -> str:
    stored = [one for _, one in _stored(cls).values()]
    if any(one.name == name for one in stored):
        other = "secrets" if kind == "setting" else "settings"
        return f"it belongs under {other}, not under {kind}s"
    there_are = f"there are: {', '.join(one.name for one in stored if one.kind == kind)}"
    return f"it is not available yet; {there_are}" if name in cls.LATER else f"no such {kind}; {there_are}"


def _wrong_type(field: FieldInfo, value: object) -> str | None:
    allowed = _types(field.annotation) - {type(None)}
    if type(value) in allowed:
        return None
    return f"it must be {' or '.join(_JSON_NAMES[one] for one in allowed)}"


def _wrong_secret(stored: Stored, values: Sequence[SecretStr]) -> str | None:
    if not all(value.get_secret_value().strip() for value in values):
        return "it is empty"
    return "only one value is possible" if len(values) > 1 and not stored.several else None
