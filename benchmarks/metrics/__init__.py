"""Definitions of all metrics: functions of samples, which know nothing of tasks."""
