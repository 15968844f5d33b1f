"""What every test shares: fixed seeds and nothing else."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

COMMON = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow],
    "database": None,
}
settings.register_profile("test", max_examples=60, **COMMON)
settings.register_profile("prove", max_examples=3000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))
