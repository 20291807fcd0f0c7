"""Networks: one small structure of pure functions (`aioseed.nets.network`), and the ones that come with aioseed."""
