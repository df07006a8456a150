"""What was measured? Values and size strings, tables, and the teachers at hand."""
