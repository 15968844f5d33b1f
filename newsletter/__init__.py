"""From an issue folder to everyone's copy.

The package reads in the order of the work: ``content`` loads an issue, ``checks`` judge it, ``render`` compiles
it once, ``message`` cuts it at its merge tags, ``sending`` freezes a campaign and hands over every copy through
a transport, and the ``store`` remembers what happened to each.
"""

__version__ = "0.1.0"
