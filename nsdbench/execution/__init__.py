"""Cells as tasks of several processes or machines: jobs, executors, and what has become of every cell.

A *job* is a folder that any of these processes can read (:mod:`~nsdbench.execution.jobs`). An *executor* takes its tasks, is
asked which of them it still has, and can be told to drop some (:mod:`~nsdbench.execution.executor`). What became of a cell is
never taken from an executor but from its run folder (:mod:`~nsdbench.execution.states`).
"""
