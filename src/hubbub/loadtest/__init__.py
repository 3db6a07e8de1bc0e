"""The performance test. Speaks HTTP only, and shares nothing with the service but the contract."""
