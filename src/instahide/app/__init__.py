"""A local web app: encryption step by step, quick attacks, and reports of audits."""
