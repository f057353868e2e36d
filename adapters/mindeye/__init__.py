"""MindEye1 and MindEye2: their networks, their training, their checkpoints."""
