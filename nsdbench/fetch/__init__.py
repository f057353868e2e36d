"""Brings real data: which files a plan needs, from the public bucket or from MindEye2's repository on the hub.

Nothing is fetched before the terms of NSD are accepted (:mod:`nsdbench.fetch.terms`).
"""

from nsdbench.fetch.plan import Item, Plan, compare_routes, make_plan
from nsdbench.fetch.request import PUBLIC_ENDPOINT, Request, purposes_of
from nsdbench.fetch.routes import Routes, open_routes
from nsdbench.fetch.run import Outcome, Result, carry_out
from nsdbench.fetch.sessions import session_fetcher

__all__ = [
    "PUBLIC_ENDPOINT",
    "Item",
    "Outcome",
    "Plan",
    "Request",
    "Result",
    "Routes",
    "carry_out",
    "compare_routes",
    "make_plan",
    "open_routes",
    "purposes_of",
    "session_fetcher",
]
