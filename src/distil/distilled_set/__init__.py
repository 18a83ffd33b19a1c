"""The distilled set: its record, its file, its exports."""
