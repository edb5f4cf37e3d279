"""The arq workers that turn raw chunks into numbered deltas."""
