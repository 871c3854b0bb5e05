"""Tells twistd of `odp`. It names the module as a string, so that `twistd --help` imports nothing of odptwist."""

from twisted.application.service import ServiceMaker

odp = ServiceMaker(
    "odptwist",
    "odptwist.tap",
    "A session-aware proxy for OceanBase and MySQL-compatible servers.",
    "odp",
)
