"""The judge: trains fresh networks on a set by a named protocol. It never imports what makes a set, and stays light here,
so that protocols can be named without importing torch."""
