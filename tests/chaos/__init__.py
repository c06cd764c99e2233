"""Trouble made on purpose: damaged pictures, and runs that are killed, preempted or diverge."""
