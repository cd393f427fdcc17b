"""A stand-in of Buildium: a server that simulates its API, for the demo, the tests and the benchmarks."""

from connectors.buildium.standin.callbacks import Webhooks
from connectors.buildium.standin.entities import Address, Event, Events
from connectors.buildium.standin.portfolio import Portfolio
from connectors.buildium.standin.seeds import bulk_portfolio, seed_portfolio
from connectors.buildium.standin.server import DEMO_ID, DEMO_SECRET, BuildiumStandIn, Call, Fault, RateLimit

__all__ = [
    "DEMO_ID",
    "DEMO_SECRET",
    "Address",
    "BuildiumStandIn",
    "Call",
    "Event",
    "Events",
    "Fault",
    "Portfolio",
    "RateLimit",
    "Webhooks",
    "bulk_portfolio",
    "seed_portfolio",
]
