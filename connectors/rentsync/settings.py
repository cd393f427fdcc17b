"""The settings of the RentSync connector, and what each may say. What is allowed but not built yet is refused here."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from connectors.http import check_url
from connectors.rentsync.auth import AUTHS
from connectors.rentsync.payload import SHAPES
from connectors.settings import Settings

CHOICES: Final[Mapping[str, Mapping[str, object]]] = {
    "auth": AUTHS,
    "shape": SHAPES,
    "batch": {"per-property": True, "single": None},
    "updates": {"both": True, "snapshot": None, "delta": None},
    "fields": {"core": True, "all": None},
    "removed": {"mark": True, "omit": None},
}
"""What every choice may say; null: it is not built yet."""


def _built(choice: str) -> str:
    return " or ".join(name for name, built in CHOICES[choice].items() if built)


class RentSyncSettings(Settings):
    """How RentSync is reached, and in which form it wants its batches."""

    allow_private: bool = Field(False, validation_alias="RENTSTREAM_ALLOW_PRIVATE", description="1 or 0")
    url: str = Field(validation_alias="RENTSYNC_URL", description="the full address that batches are POSTed to")
    auth: str = Field("api-key", validation_alias="RENTSYNC_AUTH", description=_built("auth"))
    api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="RENTSYNC_API_KEY",
        description="the key that RENTSYNC_AUTH=api-key sends as X-API-Key",
    )
    shape: str = Field("property", validation_alias="RENTSYNC_SHAPE", description=_built("shape"))
    batch: str = Field("per-property", validation_alias="RENTSYNC_BATCH", description=_built("batch"))
    updates: str = Field("both", validation_alias="RENTSYNC_UPDATES", description=_built("updates"))
    fields_: str = Field("core", validation_alias="RENTSYNC_FIELDS", description=_built("fields"))
    removed: str = Field("mark", validation_alias="RENTSYNC_REMOVED", description=_built("removed"))
    source: str = Field("rentstream", validation_alias="RENTSYNC_SOURCE", description="a name", max_length=200)
    user_agent: str = Field(
        f"RentStream/{version('rentstream')}",
        validation_alias="RENTSYNC_USER_AGENT",
        description="a product and version such as RentStream/1.0, in plain ASCII",
        pattern=r"^[\x21-\x7e]([\x20-\x7e]{0,198}[\x21-\x7e])?$",
    )
    timeout: float = 30.0
    """Seconds until an answer has to be there."""

    @model_validator(mode="before")
    @classmethod
    def _ask_for_the_key(cls, given: Any) -> Any:
        """A key that is not given is looked at as well, under its name in the environment."""
        return given if not isinstance(given, dict) or "api_key" in given else {"RENTSYNC_API_KEY": "", **given}

    @field_validator("auth", "shape", "batch", "updates", "fields_", "removed")
    @classmethod
    def _is_built(cls, given: Any, info: ValidationInfo) -> Any:
        choices = CHOICES[(info.field_name or "").rstrip("_")]
        if given not in choices:
            raise ValueError("no such choice")
        if choices[given] is None:
            raise ValueError(f"{given} is not built yet")
        return given

    @field_validator("url")
    @classmethod
    def _may_be_called(cls, given: str, info: ValidationInfo) -> str:
        wrong = check_url(given, allow_private=bool(info.data.get("allow_private")))
        if wrong:
            raise ValueError(wrong)
        return given

    @field_validator("api_key")
    @classmethod
    def _is_given(cls, given: SecretStr, info: ValidationInfo) -> SecretStr:
        key = given.get_secret_value().strip()
        if not key and info.data.get("auth") == "api-key":
            raise PydanticCustomError("missing", "it is required")
        if not all("!" <= letter <= "~" for letter in key):
            raise ValueError("a key has no spaces, line breaks or letters outside ASCII")
        return SecretStr(key)
