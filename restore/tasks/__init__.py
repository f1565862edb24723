"""Tasks: each pairs a corruption with its matching head. `TASKS` lists them and imports nothing heavy."""

from restore.tasks.spec import TASKS, Options, TaskSpec, task_spec

__all__ = ["TASKS", "Options", "TaskSpec", "task_spec"]
