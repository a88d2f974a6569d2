"""Parts of budgets that workers lease: their statements, and the queue before them."""
