"""Command lines of mmcot_model: mmcot-train and mmcot-evaluate, one module each."""
