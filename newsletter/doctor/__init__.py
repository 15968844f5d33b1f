"""Looks at everything that must be right before an issue can go out by itself. Changes nothing, sends nothing.

``report`` has the shape of what is found, and runs the checks side by side. The others look at one thing each and
know neither the settings nor each other: ``machine`` (disk, clock), ``database``, ``provider``, ``pages`` (what stands
at ``base_url``), ``spf``, ``dkim`` and ``dmarc`` (what the DNS says of the sender), ``received`` (a mail that has
arrived). ``names`` asks nameservers, ``http`` web servers.
"""
