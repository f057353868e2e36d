"""The worker of :mod:`slot_worker`, ended with its parent as the real one is."""

from __future__ import annotations

import threading

import slot_worker

from nsdbench.execution.local import end_with_parent

if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    slot_worker.main()
