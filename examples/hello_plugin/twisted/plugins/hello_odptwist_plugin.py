"""Makes what odptwist's `getPlugins` finds: every name here that provides one of its interfaces."""

from hello_odptwist import ClosedCounter, Ping, TurnRouter

closed_counter = ClosedCounter()
ping = Ping(closed_counter)
turn_router = TurnRouter()
