"""The connection test of RentSync: whether the receiver can be reached and accepts the credentials.

The test sends no POST: a receiver might take even an empty body as a snapshot without units, and remove its listings.
It sends OPTIONS and GET, which change nothing (RFC 9110, 9.2.1), each one without and with credentials. If only the
request without credentials is refused, the credentials are accepted; if neither is refused, the result states that
nothing is proven.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import httpx

from connectors.checks import Check, Fail, Finding, Pass, run_checks, secrets_of
from connectors.endpoint import (
    NETWORK_FIX,
    Network,
    SystemNetwork,
    check_address,
    check_clock,
    check_tls,
)
from connectors.http import Reply, exchange, phrase
from connectors.ports import Checked, Clock, Failure, Unauthorized
from connectors.rentsync.auth import AUTHS
from connectors.rentsync.payload import SHAPES
from connectors.rentsync.settings import RentSyncSettings
from schemas.integrations import AccessLevel, EntityAccess

_TITLE: Final = "RentSync"

OPTIONAL: Final[Mapping[str, str]] = {
    "clock_skew": "only signatures and tokens depend on the clocks",
}
"""The checks whose failure is a warning, with the reason; every other check is required."""

METHODS: Final = ("OPTIONS", "GET")
"""Safe methods; OPTIONS alone is often answered by a gateway without a check of credentials."""

REFUSALS: Final = frozenset({401, 403})
MOST_BYTES: Final = 64 * 1024
CLIENT_FIX: Final = "Check the settings oauthClientId, oauthClientSecret and oauthScope (RENTSYNC_OAUTH_CLIENT_ID, …)."
ADDRESS_FIX: Final = "Check RENTSYNC_URL (setting url): it has to be the URL that receives the POST of a batch."


async def check_rentsync(
    settings: RentSyncSettings, clock: Clock, client: httpx.AsyncClient, *, network: Network | None = None
) -> Checked:
    """Test a connection to RentSync within ten seconds, without sending a listing."""
    test = _Test(settings, clock, client, network or SystemNetwork())
    results = await run_checks(test.checks(), clock, optional=OPTIONAL, hide=secrets_of(settings))
    units = EntityAccess(entity="units", read=AccessLevel.UNSUPPORTED, create=test.access, update=test.access)
    return Checked(results, (units,))


# ------------------------------------------------------------------------------------------------- findings of answers


@dataclass(frozen=True, slots=True)
class Probe:
    """The response statuses of one method, without and with credentials."""

    method: str
    bare: int
    keyed: int


def judge_reachable(answers: Mapping[str, Reply | Failure]) -> Finding:
    """Judge the answers to requests without credentials, by their method."""
    replies = {method: answer for method, answer in answers.items() if isinstance(answer, Reply)}
    for answer in answers.values():
        if not isinstance(answer, Reply):
            return Fail(answer.detail, NETWORK_FIX)
    answered = " and ".join(f"{method} with {phrase(reply.status)}" for method, reply in replies.items())
    statuses = {reply.status for reply in replies.values()}
    if any(300 <= status < 400 for status in statuses):
        return Fail(f"{_TITLE} redirects: it answered {answered}", f"{ADDRESS_FIX} Redirects are not followed.")
    if all(status >= 500 for status in statuses):
        fix = "Run the test again in some minutes, or ask the operator of RentSync."
        return Fail(f"{_TITLE} answered {answered}", fix)
    if statuses <= {404, 410}:
        return Pass(
            f"{_TITLE} answered {answered}; many servers do so for every method except POST, so the path is not proven"
        )
    return Pass(f"{_TITLE} answered {answered}")


def judge_auth(probes: Sequence[Probe]) -> tuple[Finding, AccessLevel]:
    """Judge the credentials by the difference between the answers with and without them."""
    usable = [probe for probe in probes if probe.keyed < 500 and probe.keyed != 429]
    proof = next((one for one in usable if one.bare in REFUSALS and one.keyed not in REFUSALS), None)
    if proof:
        return Pass(f"{_TITLE} accepts the credentials: {_difference(proof)}"), AccessLevel.UNTESTED
    refused = next((one for one in usable if one.keyed == 401), None)
    if refused is None and usable and all(one.keyed in REFUSALS for one in usable):
        refused = usable[0]
    if refused:
        detail = f"{_TITLE} refuses the credentials: {refused.method} was answered with {phrase(refused.keyed)}"
        fix = (
            "Check RENTSYNC_AUTH (setting auth) and its secret with the operator of RentSync. "
            "Deliveries are on hold until the credentials are accepted."
        )
        return Fail(detail, fix), AccessLevel.DENIED
    if not usable:
        detail = f"the credentials could not be tested: {_TITLE} answered {phrase(probes[0].keyed)}"
        return Fail(detail, "Run the test again in some minutes."), AccessLevel.UNTESTED
    methods = " and ".join(one.method for one in usable)
    detail = f"the credentials were not rejected, but {_TITLE} does not ask for any for {methods}"
    return Pass(f"{detail}: only the first delivery proves them"), AccessLevel.UNTESTED


def _difference(probe: Probe) -> str:
    return f"{probe.method} was answered with {phrase(probe.bare)} without them and {phrase(probe.keyed)} with them"


def judge_settings(settings: RentSyncSettings) -> Finding:
    """Judge whether the configured scheme and shape are available."""
    for name, choice, allowed in (("auth", settings.auth, tuple(AUTHS)), ("shape", settings.shape, tuple(SHAPES))):
        if choice not in allowed:
            return Fail(f"{name} = {choice} is not available", f"Set {name} to {' or '.join(allowed)}.")
    return Pass(
        f"batches are sent {settings.batch} in shape {settings.shape} with auth {settings.auth}, "
        f"updates {settings.updates}"
    )


# ---------------------------------------------------------------------------------------------------------------- calls


@dataclass(slots=True)
class _Test:
    """One run of the test."""

    settings: RentSyncSettings
    clock: Clock
    client: httpx.AsyncClient
    network: Network
    access: AccessLevel = AccessLevel.UNTESTED
    _bare: dict[str, Reply] = field(default_factory=dict)
    """Answers to requests without credentials, by their method."""
    _received_at: datetime | None = None

    def checks(self) -> tuple[Check, ...]:
        return (
            Check("settings", self._settings),
            Check("address", self._address),
            Check("tls", self._tls, ("address",)),
            Check("reachable", self._reachable, ("tls",)),
            Check("auth", self._auth, ("settings", "reachable")),
            Check("clock_skew", self._clock_skew, ("reachable",)),
        )

    async def _settings(self) -> Finding:
        return judge_settings(self.settings)

    async def _address(self) -> Finding:
        return await check_address(self.settings.url, self.network, allow_private=self.settings.allow_private)

    async def _tls(self) -> Finding:
        return await check_tls(self.settings.url, self.client, self.clock)

    async def _reachable(self) -> Finding:
        answers = await self._probe(None)
        self._bare = {method: answer for method, answer in answers.items() if isinstance(answer, Reply)}
        self._received_at = self.clock.now()
        return judge_reachable(answers)

    async def _auth(self) -> Finding:
        answers = await self._probe(AUTHS[self.settings.auth](self.settings, self.clock))
        probes = []
        for method, answer in answers.items():
            if isinstance(answer, Unauthorized):  # the token endpoint: a status of the receiver is a reply
                self.access = AccessLevel.DENIED
                return Fail(answer.detail, CLIENT_FIX)
            if not isinstance(answer, Reply):
                return Fail(answer.detail, NETWORK_FIX)
            probes.append(Probe(method, self._bare[method].status, answer.status))
        finding, self.access = judge_auth(probes)
        return finding

    async def _clock_skew(self) -> Finding:
        assert self._received_at is not None, "the receiver was reached"
        dates = [reply.headers.get("date") for reply in self._bare.values()]
        return check_clock(next(filter(None, dates), None), self._received_at, _TITLE)

    async def _probe(self, auth: httpx.Auth | None) -> dict[str, Reply | Failure]:
        answers = await asyncio.gather(*(self._exchange(method, auth) for method in METHODS))
        return dict(zip(METHODS, answers, strict=True))

    async def _exchange(self, method: str, auth: httpx.Auth | None) -> Reply | Failure:
        request = self.client.build_request(method, self.settings.url, headers={"User-Agent": self.settings.user_agent})
        seconds = self.settings.timeout
        return await exchange(self.client, request, system=_TITLE, seconds=seconds, most_bytes=MOST_BYTES, auth=auth)
