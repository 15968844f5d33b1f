"""What the product remembers: tables, and the functions that read and write their rows.

Nothing in here knows what an email looks like or how one is sent. SQLAlchemy Core throughout.
"""
