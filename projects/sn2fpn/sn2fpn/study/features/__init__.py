"""Feature maps before and after fusion, drawn and measured (docs/features.md)."""
