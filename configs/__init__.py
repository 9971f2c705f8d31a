"""What a run is: strict typed schemas and the YAML files that differ from their defaults. Never imports torch."""
