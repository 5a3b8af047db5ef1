"""A study: several networks trained alike, several times, and compared on the same people.

- `statistics`: means, intervals and paired differences from what was measured.
- `trainings`: trains and measures every network with every seed; goes on where it was stopped.
- `costs`: parameters, multiplications and milliseconds of each network.
- `report`: all of it as a dictionary for JSON, and from that the table and the figure.
"""
